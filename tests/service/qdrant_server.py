"""A stand-in for a Qdrant server: the client's local mode behind the routes that a service reads, with faults to order.

The shapes are the client's own models. What only the real server can show (how it behaves under load, in a cluster,
while it optimizes) this one cannot.
"""

import http.server
import re
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

from pydantic import TypeAdapter
from qdrant_client import QdrantClient, models

from indexer.qdrant import QdrantEngine

Fault = Literal["", "away", "hangs", "error", "cuts", "garbage"]

POINTS = re.compile(r"/collections/([^/]+)/points(/query/batch|/count)?")
COLLECTION = re.compile(r"/collections/([^/]+)(/exists)?")


class QdrantServer:
    """The server. `fault` is how it fails, `only` the start of the path that fails; all of them unless given.

    Attributes:
        engine: What the server holds, reached without it.
    """

    def __init__(self) -> None:
        self._client = QdrantClient(":memory:")
        self.engine = QdrantEngine(self._client)
        self.hanging = threading.Semaphore(0)
        self.fault: Fault = ""
        self.only = ""
        self._mended = threading.Event()
        self._lock = threading.Lock()
        self._connections: set[socket.socket] = set()
        self._server: http.server.ThreadingHTTPServer | None = None
        self._port = 0
        self._listen()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def breaks(self, fault: Fault, only: str = "") -> None:
        """From now on requests fail so; those that are on their way do as well."""
        self.fault, self.only = fault, only
        self._mended.clear()
        if fault == "away":
            self._stop_listening()

    def mends(self) -> None:
        """From now on everything is answered."""
        was, self.fault = self.fault, ""
        self._mended.set()
        if was == "away":
            self._listen()

    def close(self) -> None:
        self._mended.set()
        self._stop_listening()
        self.engine.close()

    def _listen(self) -> None:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", self._port), self._handler())
        server.daemon_threads = True
        self._server, self._port = server, server.server_port
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def _stop_listening(self) -> None:
        if self._server:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
        for connection in list(self._connections):
            _reset(connection)

    def _handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        owner = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle(self) -> None:
                owner._connections.add(self.connection)
                try:
                    super().handle()
                except OSError:  # reset by us
                    self.close_connection = True
                finally:
                    owner._connections.discard(self.connection)

            def do_GET(self) -> None:
                self._reply(b"")

            def do_POST(self) -> None:
                self._reply(self.rfile.read(int(self.headers["Content-Length"])))

            def _reply(self, body: bytes) -> None:
                fault = owner.fault if self.path.startswith(owner.only) else ""
                if fault == "hangs":
                    owner.hanging.release()
                    owner._mended.wait(30)
                reply = b'{"status": {"error": "out of disk"}}' if fault == "error" else owner._answer(self.path, body)
                if fault == "garbage":
                    reply = reply[: len(reply) // 2]
                self.send_response(500 if fault == "error" else 200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(reply)))
                self.end_headers()
                if fault == "cuts":
                    self.wfile.write(reply[: len(reply) // 2])
                    self.wfile.flush()
                    _reset(self.connection)
                else:
                    self.wfile.write(reply)

            def log_message(self, *_: object) -> None: ...

        return Handler

    def _answer(self, path: str, body: bytes) -> bytes:
        with self._lock:
            result = self._result(path.partition("?")[0], body)
        return TypeAdapter(Any).dump_json({"result": result, "status": "ok", "time": 0.0})

    def _result(self, path: str, body: bytes) -> Any:
        client = self._client
        if path == "/aliases":
            return client.get_aliases()
        if path == "/collections":
            return client.get_collections()
        if found := POINTS.fullmatch(path):
            if found[2] == "/query/batch":
                asked = models.QueryRequestBatch.model_validate_json(body).searches
                return client.query_batch_points(found[1], asked)
            if found[2] == "/count":
                return client.count(found[1], exact=True)
            wanted = models.PointRequest.model_validate_json(body)
            return client.retrieve(found[1], wanted.ids, with_payload=True, with_vectors=True)
        if found := COLLECTION.fullmatch(path):
            if found[2]:
                return {"exists": client.collection_exists(found[1])}
            return client.get_collection(found[1])
        raise AssertionError(f"nobody was expected to ask for {path}")


@contextmanager
def qdrant_server() -> Iterator[QdrantServer]:
    """A server that runs until the block ends."""
    server = QdrantServer()
    try:
        yield server
    finally:
        server.close()


def _reset(connection: socket.socket) -> None:
    """Close a connection as a machine does that has lost its memory of it."""
    try:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return
