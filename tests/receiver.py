"""A program at an address that takes what others post to it, in the place of one that somebody else runs."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@contextmanager
def receiver(take: Callable[[str, bytes], None]) -> Iterator[str]:
    """Its address; `take` is given the path and the body of each request before that is answered 200."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            take(self.path, self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
