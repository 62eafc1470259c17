"""Searches that no caller sent, run beside those of callers: the same way, and at nobody's expense.

They get a desk of their own before the same build: its encoder's batcher is the callers', since it is what answers
them; its thread is one more, so that no caller finds one less; and nothing is remembered, or the second round would
measure the memory of the first.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from indexer.store import Build
from service.cache import Cache
from service.desk import Desk
from service.pool import Pool
from service.serving import Serving


class Aside:
    """Gives `Answering` such desks. One search at a time.

    Args:
        serving: Whose builds they are.
        leaving: Whether the app is about to end.
    """

    def __init__(self, serving: Serving, leaving: Callable[[], bool]) -> None:
        self._serving = serving
        self._leaving = leaving
        self._pool = Pool(1, 1)
        self._nothing = Cache(0, lambda kind, hit: None)

    @asynccontextmanager
    async def desk(self, index: str) -> AsyncIterator[Desk]:
        """As `Serving.desk`; the callers' desk is held until the thread has ended, whoever gives up."""
        async with self._serving.desk(index) as desk:
            beside = Desk(desk.searcher, desk.batcher, self._pool, self._nothing, live=desk.live)
            try:
                yield beside
            finally:
                await beside.left()

    async def build(self, index: str) -> Build:
        """The facts of the build that answers now; errors as `Serving.desk`."""
        async with self._serving.desk(index) as desk:
            return desk.build

    async def is_free(self, index: str) -> bool:
        """Whether a search would be in nobody's way: none runs or waits, and the app stays; errors as `build`."""
        async with self._serving.desk(index) as desk:
            return not (desk.busy or self._leaving())

    def close(self) -> None:
        """End the thread."""
        self._pool.close()
