"""What tracing costs a search: two services over one index in this process, one of them traced, asked in turn.

    DUPMAE_DATA=.dupmae python bench/tracing.py --index demo

Spans go to a receiver in another process, batched as ever. Nothing is remembered, or there would be little to trace.
"""

import argparse
import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from statistics import median
from time import perf_counter, process_time

import httpx

from service import settings
from service.app import create_app
from service.searcher import open_searchers
from service.settings import Settings

RECEIVER = """
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Receiver(BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.end_headers()
    def log_message(self, *_):
        pass
server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
print(server.server_port, flush=True)
server.serve_forever()
"""


@contextmanager
def receiver() -> Iterator[str]:
    """Where spans may be sent to, to be thrown away."""
    with subprocess.Popen([sys.executable, "-c", RECEIVER], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.kill()


async def client(stack: AsyncExitStack, told: Settings) -> httpx.AsyncClient:
    app = create_app(lambda: open_searchers(told), told)
    await stack.enter_async_context(app.router.lifespan_context(app))
    transport = httpx.ASGITransport(app)
    return await stack.enter_async_context(httpx.AsyncClient(transport=transport, base_url="http://bench"))


async def measure(told: Settings, rounds: int) -> None:
    async with AsyncExitStack() as stack:
        clients = {on: await client(stack, told.model_copy(update={"tracing": on})) for on in (False, True)}
        for each in clients.values():
            (await each.post("/v1/search", json={"query": "warm"})).raise_for_status()
        seconds: dict[bool, list[float]] = {False: [], True: []}
        cpu: dict[bool, list[float]] = {False: [], True: []}
        for number in range(rounds):
            for on in (False, True) if number % 2 else (True, False):
                began, used = perf_counter(), process_time()
                await clients[on].post("/v1/search", json={"query": f"how do I compress file {number}"})
                seconds[on].append(perf_counter() - began)
                cpu[on].append(process_time() - used)
    for name, of in (("time to an answer", seconds), ("processor time", cpu)):
        off, on = (1000 * median(of[traced]) for traced in (False, True))
        print(f"{name}, median of {rounds}: {off:.2f} ms, traced {on:.2f} ms, ratio {on / off:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--index", default="demo", help="index to ask")
    parser.add_argument("--rounds", type=int, default=1000, help="searches of each service")
    given = parser.parse_args()
    with receiver() as address:
        os.environ |= {"OTEL_EXPORTER_OTLP_ENDPOINT": address}
        told = settings.load().model_copy(update={"index": given.index, "cache_mb": 0, "threads": 1})
        asyncio.run(measure(told, given.rounds))


if __name__ == "__main__":
    main()
