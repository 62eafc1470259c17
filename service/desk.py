"""A pair of encoder and build that answers, and who still uses it.

A request asks one desk from its beginning to its end, so no answer mixes two builds. When another build takes over, the
desk stays open until the last request has left it, threads included that run on after their caller gave up.
"""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from typing import ParamSpec, Self, TypeVar

from indexer.live import LiveBuild
from indexer.store import Build
from service.batching import MicroBatcher
from service.searcher import Searcher

P = ParamSpec("P")
T = TypeVar("T")


class Desk:
    """One opened build of an index. Made and used on the event loop.

    Attributes:
        searcher: The pair.
        batcher: Stands in front of the pair's encoder.
        live: Writes to the build; None where the service is not told to.
    """

    def __init__(
        self, searcher: Searcher, batcher: MicroBatcher, threads: Executor, *, live: LiveBuild | None = None
    ) -> None:
        self.searcher = searcher
        self.batcher = batcher
        self.live = live
        self._threads = threads
        self._uses = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def build(self) -> Build:
        """The facts of the build that answers, live writes counted."""
        return self.live.build if self.live else self.searcher.build

    @contextmanager
    def held(self) -> Iterator[Self]:
        """The desk is not closed within."""
        self._enter()
        try:
            yield self
        finally:
            self._leave()

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The outcome of `function`, run in a thread; the desk is held until it has returned, whoever waits for it."""
        loop = asyncio.get_running_loop()
        running = self._threads.submit(function, *args, **kwargs)
        self._enter()
        running.add_done_callback(lambda _: loop.call_soon_threadsafe(self._leave))
        return await asyncio.wrap_future(running)

    async def left(self) -> None:
        """Wait until nobody holds the desk."""
        await self._idle.wait()

    def _enter(self) -> None:
        self._uses += 1
        self._idle.clear()

    def _leave(self) -> None:
        self._uses -= 1
        if not self._uses:
            self._idle.set()
