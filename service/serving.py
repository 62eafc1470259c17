"""What a running app answers with: opened indexes by name, and one batcher for each encoder.

The default index is opened at start, the others when they are first asked for. An index that cannot be opened is tried
again by the next request or readiness probe, so a service may start before its first build is published.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from indexer.store import Build, IndexNotFound, StoreError
from model.artifact import ArtifactError
from model.encoder import ProviderError
from service.batching import MicroBatcher
from service.metrics import Metrics
from service.searcher import Searcher, Searchers
from service.settings import Settings

LOGGER = logging.getLogger("dupmae.serving")


class NotReady(Exception):
    """An index cannot be served now; the message is the reason, with its remedy."""


@dataclass(frozen=True, slots=True)
class Desk:
    """One opened index: its searcher, and the batcher in front of its encoder."""

    searcher: Searcher
    batcher: MicroBatcher


class Serving:
    """The indexes of one app.

    Args:
        open_searchers: Connects to the engine; called again when it failed.
        settings: Names the default index and bounds the queues.
        metrics: Watches the queues.
        on_open: Told of each build that is opened.
    """

    def __init__(
        self,
        open_searchers: Callable[[], Searchers],
        settings: Settings,
        metrics: Metrics,
        *,
        on_open: Callable[[Build], None],
    ) -> None:
        self._open_searchers = open_searchers
        self._settings = settings
        self._on_open = on_open
        self._connecting = asyncio.Lock()
        self._searchers: Searchers | None = None
        self._desks: dict[str, Desk] = {}
        self._opening: dict[str, asyncio.Task[Desk]] = {}
        self._batchers: dict[str, MicroBatcher] = {}
        metrics.watch_queue(lambda: sum(batcher.depth for batcher in self._batchers.values()))

    def start(self) -> None:
        """Begin to open the default index, without waiting for it."""
        self._opening_of(self._settings.index)

    async def desk(self, index: str) -> Desk:
        """The opened index of this name; opened now when it is not yet.

        Raises:
            IndexNotFound: Nothing is published under this name, and it is not the default's.
            NotReady: It cannot be opened now.
        """
        if index in self._desks:
            return self._desks[index]
        return await asyncio.shield(self._opening_of(index))

    async def close(self) -> None:
        """Answer the queries that wait, then close what was opened."""
        for task in list(self._opening.values()):
            with suppress(IndexNotFound, NotReady):
                await task
        for batcher in self._batchers.values():
            await batcher.close()
        if self._searchers is not None:
            await asyncio.to_thread(self._searchers.close)

    def _opening_of(self, index: str) -> asyncio.Task[Desk]:
        """The one attempt under way for this index, which everybody who wants it waits for."""
        if index not in self._opening:
            task = asyncio.create_task(self._open(index))
            self._opening[index] = task
            task.add_done_callback(lambda done: self._opened(index, done))
        return self._opening[index]

    def _opened(self, index: str, task: asyncio.Task[Desk]) -> None:
        del self._opening[index]
        task.cancelled() or task.exception()  # seen, also when everybody who waited has gone

    async def _open(self, index: str) -> Desk:
        try:
            async with self._connecting:
                if self._searchers is None:
                    self._searchers = await asyncio.to_thread(self._open_searchers)
            searcher = await asyncio.to_thread(self._searchers.open, index)
            await asyncio.to_thread(searcher.warm_up)
        except (StoreError, ArtifactError, ProviderError) as error:
            if isinstance(error, IndexNotFound) and index != self._settings.index:
                raise
            LOGGER.warning("index %r cannot be served: %s", index, error)
            raise NotReady(str(error)) from error
        desk = self._desks[index] = Desk(searcher, self._batcher(searcher))
        self._on_open(searcher.build)
        return desk

    def _batcher(self, searcher: Searcher) -> MicroBatcher:
        fingerprint = searcher.encoder.fingerprint
        if fingerprint not in self._batchers:
            self._batchers[fingerprint] = MicroBatcher(
                searcher.encoder.encode_queries,
                max_batch=self._settings.max_batch,
                max_queue=self._settings.max_queue,
            )
        return self._batchers[fingerprint]
