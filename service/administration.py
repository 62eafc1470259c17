"""Publishing and rolling back in a running service: the same gate as the command's, then the switch, then the answer.

The gate reads the whole build in a thread of this process, and what is served goes on being served meanwhile. The
embedded engine opens a build once: so the gate is handed what the service has open already, published build included,
which a command beside a writing service could not open to judge against. A build that another process has open for
writing is refused as locked.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable

from indexer.catalog import find_build, rollback
from indexer.gate import Limits
from indexer.judgement import Opened
from indexer.ledger import is_open, ledger_path
from indexer.release import ReleaseOptions, release
from indexer.store import Build, Engine, IndexNotFound
from service.build_schemas import (
    BuildOut,
    BuildsOut,
    PublishRequest,
    ReleaseOut,
)
from service.caller import Caller
from service.desk import Desk
from service.keyring import is_loopback
from service.schemas import IndexesOut, PublishedIndexOut
from service.serving import NotReady, Serving
from service.settings import Settings


class NotAdministrable(Exception):
    """This service publishes nothing for callers it does not know."""


class ReleaseUnderWay(Exception):
    """One publication or rollback at a time."""


class ReleaseStopped(Exception):
    """The service is shutting down; nothing was published."""


class Administration:
    """The builds of one app."""

    def __init__(self, serving: Serving, settings: Settings) -> None:
        self._serving = serving
        self._settings = settings
        self._releasing = asyncio.Lock()
        self._stopping = threading.Event()

    async def indexes(self, caller: Caller) -> IndexesOut:
        """What is published and the caller may use; StoreError if the engine fails."""
        engine = (await self._serving.connected()).engine
        builds = await asyncio.to_thread(_published, engine)
        return IndexesOut(indexes=[self._index(build, caller) for build in builds if caller.may_use(build.index)])

    async def builds(self, index: str) -> BuildsOut:
        """The builds of an index, those in the making too.

        Raises:
            IndexNotFound: It has none.
            StoreError: The engine failed.
        """
        engine = (await self._serving.connected()).engine
        return BuildsOut(builds=await asyncio.to_thread(self._builds, engine, index))

    async def publish(self, index: str, build_id: str, wanted: PublishRequest) -> ReleaseOut:
        """Let an index answer from another of its builds; returns when this service does.

        Whoever waits may give up: what has begun is finished.

        Raises:
            ReleaseUnderWay: Another publication is.
            IndexNotFound: There is no such build.
            BuildLocked: Another process writes to it.
            ArtifactError, PublicationBlocked, StoreError: As `release`; nothing changed.
            SwitchFailed: It is published, and this service cannot open it.
        """
        limits = Limits(tolerance=wanted.tolerance, max_shrink=wanted.max_shrink, max_bad=wanted.max_bad)

        def do(engine: Engine, opened: list[Opened]) -> str:
            options = ReleaseOptions(gate=wanted.gate, limits=limits, keep=0, watch=self._go_on, opened=opened)
            return release(engine, self._settings, find_build(engine, index, build_id), options).note

        return await self._once(index, do)

    async def rollback(self, index: str) -> ReleaseOut:
        """Let an index answer from the build that was live before; returns when this service does.

        Raises:
            NoEarlierBuild: There is none.
            ReleaseUnderWay, IndexNotFound, BuildLocked, ArtifactError, StoreError, SwitchFailed: As `publish`.
        """

        def do(engine: Engine, opened: list[Opened]) -> str:
            rollback(self._settings, engine, index)
            return ""

        return await self._once(index, do)

    async def close(self) -> None:
        """Stop a gate that is being passed, and wait for what has begun."""
        self._stopping.set()
        async with self._releasing:
            pass

    async def _once(self, index: str, do: Callable[[Engine, list[Opened]], str]) -> ReleaseOut:
        if self._releasing.locked():
            raise ReleaseUnderWay("a build is being published or rolled back already; ask again when it is done")
        await self._releasing.acquire()
        return await asyncio.shield(asyncio.create_task(self._release(index, do)))

    async def _release(self, index: str, do: Callable[[Engine, list[Opened]], str]) -> ReleaseOut:
        try:
            engine = (await self._serving.connected()).engine
            note = await self._held(index, lambda opened: asyncio.to_thread(do, engine, opened))
            served = await self._serving.switch_now(index)
            found = find_build(engine, index, served.id)
            return ReleaseOut(build=self._out(found, published=True), note=note)
        finally:
            self._releasing.release()

    async def _held(self, index: str, do: Callable[[list[Opened]], Awaitable[str]]) -> str:
        """The outcome of `do`, which is handed the open build of an index while it is held; none if none is open."""
        try:
            async with self._serving.desk(index) as desk:
                return await do([_opened(desk)])
        except (IndexNotFound, NotReady):
            if self._serving.serves(index):
                raise
        return await do([])

    def _builds(self, engine: Engine, index: str) -> list[BuildOut]:
        live = engine.published(index).id if index in engine.indexes() else None
        builds = engine.builds(index)
        if not builds:
            raise IndexNotFound(f"Index {index!r} has no build; build it with `dupmae index build`.")
        return [self._out(build, published=build.id == live) for build in builds]

    def _out(self, build: Build, *, published: bool) -> BuildOut:
        served = self._serving.serves(build.index)
        is_served = served is not None and served.id == build.id
        running = is_open(ledger_path(self._settings.data, build.index, build.id))
        counted = served if is_served and served else build
        return BuildOut.of(counted, published=published, served=is_served, running=running)

    def _index(self, build: Build, caller: Caller) -> PublishedIndexOut:
        served = self._serving.serves(build.index)
        counted = served if served and served.id == build.id else build
        return PublishedIndexOut(
            name=build.index,
            build=build.id,
            fingerprint=build.fingerprint,
            documents=None if caller.tenant else counted.documents,
            fields=build.indexed_fields,
        )

    def _go_on(self, points: int) -> None:
        if self._stopping.is_set():
            raise ReleaseStopped("the service is shutting down; nothing was published")


def check_administrable(settings: Settings) -> None:
    """Raise NotAdministrable unless whoever can reach the service may publish.

    Where no key says who asks, that is the machine's own user: the service listens on loopback, and was told to write.
    """
    if not (settings.writable and is_loopback(settings.host)):
        raise NotAdministrable(
            "nobody may publish here without a key: this service is not both on loopback and started with "
            "DUPMAE_WRITABLE=true; use `dupmae index publish` or `rollback`, which a running service follows"
        )


def _published(engine: Engine) -> list[Build]:
    return [engine.published(index) for index in engine.indexes()]


def _opened(desk: Desk) -> Opened:
    return Opened(desk.searcher.store, desk.searcher.encoder)
