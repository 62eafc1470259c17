"""What a running app answers with: opened indexes by name, and one batcher for each encoder.

The default index is opened at start, the others when they are first asked for. An index that cannot be opened is tried
again by the next request or readiness probe, so a service may start before its first build is published.

Once opened, an index follows what is published. The new pair of encoder and build is loaded and warmed beside the old
one and then takes its place as one value; requests finish on the pair they began with. A pair that cannot be loaded
changes nothing but a metric. The cost: while both are open, the memory of both.

A store that is away or hangs makes its own index fail and no other. It is asked again and again, so that readiness
follows it, down and up.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from indexer.live import LiveBuild, Written
from indexer.store import Build, IndexNotFound, StoreError
from model.artifact import ArtifactError
from model.encoder import Encoder
from model.session import ProviderError
from service.batching import MicroBatcher
from service.cache import Cache
from service.desk import Desk
from service.metrics import Metrics
from service.pool import Pool
from service.queueing import QueueFull
from service.searcher import Searcher, Searchers
from service.settings import Settings
from service.switch import Setbacks

LOGGER = logging.getLogger("dupmae.serving")

SERVER_THREADS, EMBEDDED_THREADS = 4, 2
"""Calls of one store at once. Those of the embedded engine wait for each other, and the event loop for them."""


class NotReady(Exception):
    """An index cannot be served now; the message is the reason, with its remedy."""


class SwitchFailed(Exception):
    """What was published cannot be served, and the index answers as before; the message has the reason."""


class NotWritable(Exception):
    """This service takes no live writes."""


class Serving:
    """The indexes of one app.

    Args:
        open_searchers: Connects to the engine; called again when it failed.
        settings: Names the default index, bounds the queues, and says how often to look for another build.
        metrics: Watches the queues and the switches.
        on_open: Told of the build that an index is opened with first.
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
        self._metrics = metrics
        self._on_open = on_open
        self._connecting = asyncio.Lock()
        self._switching = asyncio.Lock()
        self._writing: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._searchers: Searchers | None = None
        self._desks: dict[str, Desk] = {}
        self._retiring: dict[Desk, asyncio.Task[None]] = {}
        self._opening: dict[str, asyncio.Task[Desk]] = {}
        self._batchers: dict[Encoder, MicroBatcher] = {}
        self._setbacks = Setbacks(settings.switch_s)
        self._away: dict[str, str] = {}
        self._cache = Cache(settings.cache_mb * 2**20, metrics.looked_up)
        self._background: list[asyncio.Task[None]] = []
        metrics.watch_queues(
            encoder=lambda: sum(batcher.depth for batcher in self._batchers.values()),
            store=lambda: sum(desk.waiting for desk in self._desks.values()),
            limit=settings.max_queue,
        )
        metrics.watch_readiness(lambda: settings.index in self._desks and settings.index not in self._away)
        metrics.watch_cache(lambda: self._cache.bytes)

    def start(self) -> None:
        """Begin to open the default index, without waiting for it, to follow what is published, and to probe stores."""
        self._opening_of(self._settings.index)
        self._background = [asyncio.create_task(self._follow()), asyncio.create_task(self._probe_always())]

    @asynccontextmanager
    async def desk(self, index: str) -> AsyncIterator[Desk]:
        """The opened index of this name, held until the block ends; opened now when it is not yet.

        Raises:
            IndexNotFound: Nothing is published under this name, and it is not the default's.
            NotReady: It cannot be opened now.
        """
        if index not in self._desks:
            await asyncio.shield(self._opening_of(index))
        with self._desks[index].held() as desk:
            yield desk

    async def ready(self, index: str) -> Build:
        """The build that this index can be searched in now.

        Raises:
            NotReady: It cannot be opened, or its store does not answer; the message says why.
            IndexNotFound: As `desk`.
        """
        async with self.desk(index) as desk:
            if reason := self._away.get(index):
                raise NotReady(reason)
            return desk.build

    async def write(self, index: str, change: Callable[[LiveBuild], Written]) -> tuple[Build, Written]:
        """Change the build that answers, one caller after the other; who waits may give up, the change does not.

        Returns:
            The facts of the build after the change, and what became of it.

        Raises:
            NotWritable: The settings do not allow it.
            IndexNotFound, NotReady: As `desk`.
            EncodingError, StoreError: As `LiveBuild.put`.
        """
        if not self._settings.writable:
            raise NotWritable("this service is not the writer of its indexes; start it with DUPMAE_WRITABLE=true")
        await self._writing[index].acquire()
        return await asyncio.shield(asyncio.create_task(self._write(index, change)))

    async def switch(self, index: str) -> None:
        """Answer from the build that is published now, if the index is open and answers from another.

        Until that build is ready to answer, and when it cannot be made so, the present one does.
        """
        async with self._switching:
            if desk := self._desks.get(index):
                await self._try_to_switch(index, desk)

    async def switch_now(self, index: str) -> Build:
        """As `switch`, but opening an index that is not open, and said aloud when it cannot be done.

        Returns:
            The facts of the build that answers.

        Raises:
            SwitchFailed: The present build goes on answering, and the service goes on trying.
            IndexNotFound, NotReady: As `desk`.
        """
        async with self.desk(index) as before, self._switching:
            self._setbacks.try_at_once(index)
            await self._try_to_switch(index, before)
            if reason := self._setbacks.reason(index):
                raise SwitchFailed(
                    f"index {index!r} goes on answering from build {before.build.id}, and the service goes on trying "
                    f"to follow what is published: {reason}"
                )
            return self._desks[index].build

    def serves(self, index: str) -> Build | None:
        """The facts of the build that an index answers from here, live writes counted; None if it is not open."""
        return self._desks[index].build if index in self._desks else None

    async def connected(self) -> Searchers:
        """The connection to the engine, made now when there is none.

        Raises:
            StoreUnavailable: It cannot be reached.
        """
        async with self._connecting:
            if self._searchers is None:
                self._searchers = await asyncio.to_thread(self._open_searchers)
            return self._searchers

    async def close(self) -> None:
        """Answer the queries that wait, then close what was opened."""
        async with self._switching:  # a switch that has begun is finished: nobody could close what its thread opens
            for task in self._background:
                task.cancel()
        await asyncio.gather(*self._opening.values(), return_exceptions=True)  # whoever waited for it has heard of it
        for batcher in list(self._batchers.values()):
            await batcher.close()
        self._retiring |= {desk: asyncio.create_task(self._retire(desk)) for desk in self._desks.values()}
        for error in await asyncio.gather(*self._retiring.values(), return_exceptions=True):
            if error:
                LOGGER.error("a build was not closed in order", exc_info=error)
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
            desk = await self._load(await self.connected(), index)
        except (StoreError, ArtifactError, ProviderError) as error:
            if isinstance(error, IndexNotFound) and index != self._settings.index:
                raise
            LOGGER.warning("index %r cannot be served: %s", index, error)
            raise NotReady(str(error)) from error
        self._desks[index] = desk
        self._metrics.opened(desk.build)
        self._metrics.switch_failed(index, False)
        self._metrics.store_away(index, False)
        self._on_open(desk.build)
        return desk

    async def _load(self, searchers: Searchers, index: str) -> Desk:
        """The published build, opened, brought up to date if this service writes, and warmed."""
        searcher = await asyncio.to_thread(searchers.open, index, write=self._settings.writable)
        try:
            live = await asyncio.to_thread(_caught_up, searchers, searcher) if self._settings.writable else None
            await asyncio.to_thread(searcher.warm_up)
            self._metrics.loaded(index, await asyncio.to_thread(searcher.store.condition))
        except BaseException:
            await asyncio.to_thread(searchers.release, searcher)
            raise
        threads = self._settings.store_threads or (EMBEDDED_THREADS if searcher.store.exclusive else SERVER_THREADS)
        pool = Pool(threads, self._settings.max_queue, self._max_wait_s)
        return Desk(searcher, self._batcher(searcher), pool, self._cache, live=live)

    async def _write(self, index: str, change: Callable[[LiveBuild], Written]) -> tuple[Build, Written]:
        """Change the build, and let the next writer go."""
        try:
            async with self.desk(index) as desk:
                assert desk.live is not None
                written = await desk.run(change, desk.live)
                return desk.build, written
        finally:
            self._writing[index].release()

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(self._settings.switch_s)
            for index in list(self._desks):
                await self.switch(index)

    async def _probe_always(self) -> None:
        while True:
            await asyncio.sleep(self._settings.switch_s)
            await asyncio.gather(*map(self._probe, self._desks))

    async def _probe(self, index: str) -> None:
        """Ask the store of an index something small, unless it has answered a request since the last time."""
        try:
            async with asyncio.timeout(self._settings.timeout_ms / 1000), self.desk(index) as desk:
                if not desk.proven:
                    await desk.run(desk.searcher.probe)
                desk.proven = False
        except QueueFull:  # overloaded is not away: other replicas would be next
            return
        except Exception as error:  # noqa: BLE001 - whatever the store raises, it is asked again
            reason = str(error) or f"the store of index {index!r} does not answer in time"
            if index not in self._away:
                LOGGER.error("index %r is not ready: %s", index, reason)
            self._away[index] = reason
            self._metrics.store_away(index, True)
        else:
            self._metrics.store_away(index, False)
            if self._away.pop(index, None):
                LOGGER.warning("the store of index %r answers again", index)

    async def _try_to_switch(self, index: str, desk: Desk) -> None:
        assert self._searchers is not None
        now, build_id = asyncio.get_running_loop().time, ""
        try:
            build_id = (await asyncio.to_thread(self._searchers.published, index)).id
            if build_id != desk.build.id:
                if not self._setbacks.due(index, build_id, now()):
                    return
                await self._wait_until_closed(build_id)
                await self._take_over(index, await self._load(self._searchers, index))
            elif desk.live:
                await self._keep_up(index, desk, desk.live)
        except Exception as error:  # noqa: BLE001 - whatever the new build raises, the old one answers, and `_follow` lives
            self._setbacks.failed(index, build_id, str(error) or type(error).__name__, now())
            self._metrics.switch_failed(index, True)
        else:
            self._setbacks.over(index)
            self._metrics.switch_failed(index, False)

    async def _keep_up(self, index: str, desk: Desk, live: LiveBuild) -> None:
        """Replay what other replicas wrote, and save how far this build has read."""
        async with self._writing[index]:
            await asyncio.to_thread(live.catch_up)
            await asyncio.to_thread(live.save)
        self._metrics.opened(desk.build)

    async def _wait_until_closed(self, build_id: str) -> None:
        """A build that is still being left cannot be opened for writing again; a request does not stay forever."""
        closing = [task for desk, task in self._retiring.items() if desk.build.id == build_id]
        if closing:
            await asyncio.wait(closing, timeout=self._settings.timeout_ms / 1000)

    async def _take_over(self, index: str, desk: Desk) -> None:
        """From here on, requests that begin are answered by this desk. Writes wait while it reads the last of them."""
        async with self._writing[index]:
            try:
                if desk.live:
                    await asyncio.to_thread(desk.live.catch_up)
                    await asyncio.to_thread(desk.live.save)
            except BaseException:
                await self._close(desk)
                raise
            before = self._desks[index]
            self._desks[index] = desk
        self._metrics.opened(desk.build)
        LOGGER.info("index %r answers from build %s, no longer from %s", index, desk.build.id, before.build.id)
        self._retiring[before] = asyncio.create_task(self._retire(before))

    async def _retire(self, desk: Desk) -> None:
        """Close a desk when its last request has left it."""
        await desk.left()
        try:
            if desk.live:
                await asyncio.to_thread(desk.live.save)
        except StoreError as error:
            LOGGER.warning("what build %s has read of the journal is read again: %s", desk.build.id, error)
        finally:
            await self._close(desk)
            self._retiring.pop(desk, None)

    async def _close(self, desk: Desk) -> None:
        """Release a build, and its batcher if no other desk has it."""
        assert self._searchers is not None
        desk.close()
        await asyncio.to_thread(self._searchers.release, desk.searcher)
        others = {*self._desks.values(), *self._retiring} - {desk}
        if all(other.batcher is not desk.batcher for other in others):
            self._batchers.pop(desk.searcher.encoder, None)
            await desk.batcher.close()

    @property
    def _max_wait_s(self) -> float:
        """A fifth of the time that a request has: rather a clear no at once than an answer that nobody waits for."""
        return self._settings.timeout_ms / 5000

    def _batcher(self, searcher: Searcher) -> MicroBatcher:
        encoder, settings = searcher.encoder, self._settings
        if encoder not in self._batchers:
            self._batchers[encoder] = MicroBatcher(
                {"query": encoder.tokenize_query, "document": encoder.tokenize_document},
                encoder.encode_tokenized,
                max_batch=settings.max_batch,
                max_tokens=settings.max_batch_tokens,
                max_queue=settings.max_queue,
                max_wait_s=self._max_wait_s,
            )
        return self._batchers[encoder]


def _caught_up(searchers: Searchers, searcher: Searcher) -> LiveBuild:
    live = searchers.live(searcher)
    live.catch_up()
    live.save()
    return live
