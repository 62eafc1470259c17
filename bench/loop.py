"""How late the service's event loop is, with Qdrant by URL and with the embedded engine, which holds Python's lock.

    DUPMAE_DATA=.dupmae python bench/loop.py --index demo                   # a minute on two cores

A task in the loop of the service sleeps for a millisecond, again and again, and notes how much later than that it woke:
whatever keeps the loop, its own work, a thread that holds the lock, or a core that another process has, is in it, and
up to one millisecond that is epoll's grain. `work` is how much of a processor's time one callback of the loop took,
which is what the service itself keeps it for. Behind the URL is the tests' stand-in for a server, in a process of its
own, which speaks the same HTTP but answers slowly (`qdrant-client` in memory): what it sends has to be read and
checked just the same. Nothing is remembered (`DUPMAE_CACHE_MB=0`).
"""

import asyncio
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import uvicorn
from callers import Caller, Server, quantile, saturate
from record import parser_of, write
from serving import queries_of

from indexer.points import Point
from indexer.store import Build
from service import settings
from service.app import create_app
from service.searcher import open_searchers
from service.server import listen, settle

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.service.qdrant_server import QdrantServer

LIMIT_MS = 5.0
CONTEXT = get_context("spawn")


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--index", default="demo")
    parser.add_argument("--points", type=int, default=200, help="of the index, that the stand-in holds")
    parser.add_argument("--seconds", type=float, default=10, help="of each load")
    given = parser.parse_args()
    loaded = settings.load()
    with open_searchers(loaded) as searchers:
        searcher = searchers.open(given.index)
        queries = queries_of(searcher, 1024)
        points, build = list(islice(searcher.store.scroll(), given.points)), searcher.build
    changes = {"index": given.index, "cache_mb": 0, "log_level": "error"}
    rows = []
    with child(stand_in, build, points) as server:
        url = server.recv()
        for engine, where in (("embedded", {}), ("Qdrant by URL", {"qdrant_url": url})):
            with child(serve, loaded.model_copy(update=changes | where)) as service:
                rows += measure(engine, service, queries, given.seconds)
    print("| engine | load | answered | p50, ms | p99 | p99.9 | latest | later than 5 ms | work, p99 | most |")
    print("|---" * 10 + "|")
    for row in rows:
        print("| " + " | ".join(str(value) for value in row.values()) + " |")
    write(given.json, rows)


def measure(engine: str, service: Connection, queries: Sequence[str], seconds: float) -> Iterator[dict[str, Any]]:
    """A row for each load: nobody, one caller, 32 of them."""
    port = service.recv()
    server = Server("127.0.0.1", port, None)  # type: ignore[arg-type] # nobody asks for its process
    caller = Caller(server)
    for query in queries[:20]:
        caller.ask(query)

    def one_caller() -> int:
        caller, began, asked = Caller(server), time.perf_counter(), 0  # the service has closed the other, idle one
        while time.perf_counter() - began < seconds:
            caller.ask(queries[asked % len(queries)])
            asked += 1
        return asked

    def many_callers() -> int:
        return len(asyncio.run(saturate(server, queries, seconds)).ms(200))

    loads = {"nobody": lambda: time.sleep(seconds) or 0, "one caller": one_caller, "32 callers": many_callers}
    for load, run in loads.items():
        service.send("begin")
        answered = run()
        service.send("end")
        late, work = (sorted(1000 * each for each in times) for times in service.recv())
        yield {
            "engine": engine,
            "load": load,
            "answered": answered,
            "p50": round(statistics.median(late), 2),
            "p99": round(quantile(late, 0.99), 2),
            "p99.9": round(quantile(late, 0.999), 2),
            "latest": round(late[-1], 1),
            "over": f"{sum(each > LIMIT_MS for each in late):,} of {len(late):,}",
            "work p99": round(quantile(work, 0.99), 2),
            "most work": round(work[-1], 1),
        }


@contextmanager
def child(target: Any, *arguments: Any) -> Iterator[Connection]:
    """A process that gets one end of a pipe, and is ended with the block."""
    mine, theirs = CONTEXT.Pipe()
    process = CONTEXT.Process(target=target, args=(theirs, *arguments), daemon=True)
    process.start()
    theirs.close()
    try:
        yield mine
    finally:
        process.kill()
        process.join()


def stand_in(pipe: Connection, build: Build, points: Sequence[Point]) -> None:
    """A server that holds the points as the published build."""
    server = QdrantServer()
    store = server.engine.create(build)
    store.upsert(points)
    server.engine.publish(build)
    pipe.send(server.url)
    with suppress(EOFError):
        pipe.recv()  # until the benchmark is gone


def serve(pipe: Connection, wanted: settings.Settings) -> None:
    """The service, as `dupmae serve` runs it, with a task that notes how late it is woken."""
    with listen("127.0.0.1", 0) as listener:

        def ready(_: Build) -> None:
            settle()
            pipe.send(listener.getsockname()[1])

        config = uvicorn.Config(
            create_app(lambda: open_searchers(wanted), wanted, on_ready=ready),
            log_config=None,
            access_log=False,
            http="h11",
        )
        asyncio.run(noting(uvicorn.Server(config).serve(sockets=[listener]), pipe))


async def noting(served: Any, pipe: Connection) -> None:
    """Serve, and note seconds of lateness and of work between "begin" and "end", which sends them."""
    late: list[float] = []
    work: list[float] = []
    run = asyncio.Handle._run

    def noted(handle: asyncio.Handle) -> None:
        began = time.thread_time()
        run(handle)
        work.append(time.thread_time() - began)

    def told() -> None:
        try:
            if pipe.recv() == "end":
                pipe.send((late, work))
        except EOFError:
            sys.exit("the benchmark is gone")
        late.clear()
        work.clear()

    async def sleep() -> None:
        loop = asyncio.get_running_loop()
        while True:
            wanted = loop.time() + 0.001
            await asyncio.sleep(0.001)
            late.append(loop.time() - wanted)

    asyncio.Handle._run = noted  # type: ignore[method-assign] # asyncio has no hook for this
    asyncio.get_running_loop().add_reader(pipe.fileno(), told)
    sleeping = asyncio.create_task(sleep())
    await served
    sleeping.cancel()


if __name__ == "__main__":
    main()
