"""A pair of encoder and build that answers, and who still uses it.

A request asks one desk from its beginning to its end, so no answer mixes two builds. When another build takes over, the
desk stays open until the last request has left it, threads included that run on after their caller gave up.

A desk remembers: the vectors of queries, and whole answers where nobody else can change the build while it is open. On
a server another replica may, so there answers are not kept.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from functools import partial
from itertools import count
from time import perf_counter
from typing import ParamSpec, Protocol, Self, TypeVar

from indexer.live import LiveBuild
from indexer.store import Build
from service.batching import Encoded, MicroBatcher
from service.cache import Cache, Flights
from service.pool import Pool
from service.schemas import SearchOptions, SearchResponse
from service.searcher import Searcher
from service.spans import span

P = ParamSpec("P")
T = TypeVar("T")

SERIALS = count()


class Desk:
    """One opened build of an index. Made and used on the event loop.

    Attributes:
        searcher: The pair.
        batcher: Stands in front of the pair's encoder.
        live: Writes to the build; None where the service is not told to.
        proven: Whether the store has answered a search since somebody last set this to False.
    """

    def __init__(
        self, searcher: Searcher, batcher: MicroBatcher, pool: Pool, cache: Cache, *, live: LiveBuild | None = None
    ) -> None:
        self.searcher = searcher
        self.batcher = batcher
        self.live = live
        self.proven = True
        self._pool = pool
        self._cache = cache
        self._flights = Flights()
        self._serial = next(SERIALS)
        self._coming = 0
        self._uses = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def build(self) -> Build:
        """The facts of the build that answers, live writes counted."""
        return self.live.build if self.live else self.searcher.build

    @property
    def waiting(self) -> int:
        """Calls that wait for a thread."""
        return self._pool.depth

    @property
    def busy(self) -> bool:
        """Whether its encoder or one of its threads works, or somebody waits for them."""
        return self.batcher.busy or self._pool.running > 0 or self._pool.depth > 0

    @contextmanager
    def held(self) -> Iterator[Self]:
        """The desk is not closed within."""
        self._enter()
        try:
            yield self
        finally:
            self._leave()

    async def encode_query(self, text: str, tenant: object = None) -> Encoded:
        """As `MicroBatcher.encode`, but for a query that is remembered, which took no time and was in no batch.

        A query that the store would have no room for is refused now, not after it has waited for the encoder.

        Args:
            text: The query.
            tenant: Who asks: what one tenant asked is remembered for that tenant, or its time would tell the others.

        Raises:
            QueueFull: Too many wait for the encoder, or for a thread.
        """
        self._pool.check(self._coming)
        self._coming += 1
        try:
            with span("encode", role="query") as facts:
                encoded = await self._encoded(text, tenant)
                facts |= encoded.facts
            return encoded
        finally:
            self._coming -= 1

    async def answer(
        self, what: str, body: SearchOptions, make: Callable[[], Awaitable[SearchResponse]]
    ) -> SearchResponse:
        """The answer to a request: a remembered one, or that of `make`, which others may share.

        Args:
            what: What is searched for.
            body: All else that the answer depends on besides the build; every field but those that only say when to
                give up is part of the key, a filter that was forced upon the request included.
            make: Works it out, holding the desk by itself.
        """
        with span("search", mode=body.mode) as facts:
            answer = await self._remembered(what, body, make)
            facts["remembered"] = "cache" in answer.meta.took_ms
        return answer

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The outcome of `function`, run in a thread; the desk is held until it has returned, whoever waits for it.

        Raises:
            QueueFull: Too many wait for a thread.
        """
        self._pool.check()
        return await self.go_on(function, *args, **kwargs)

    async def go_on(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """As `run`, for a caller who was let in before and is not turned away half-way."""
        with self.held():
            running = await self._pool.begin(partial(function, *args, **kwargs), self._leave)
            self._enter()
            return await running

    async def left(self) -> None:
        """Wait until nobody holds the desk."""
        await self._idle.wait()

    def close(self) -> None:
        """End the threads, which nobody uses any more."""
        self._pool.close()

    async def _encoded(self, text: str, tenant: object) -> Encoded:
        if not self._cache.is_on:
            return await self.batcher.encode(text)
        key = (self.searcher.encoder.fingerprint, tenant, text)
        if (encoding := self._cache.get("vectors", key)) is not None:
            return Encoded(encoding, 0.0, 0.0, 0)
        return await self._flights.join(key, partial(self._encode, key))

    async def _encode(self, key: tuple[str, object, str]) -> Encoded:
        encoded = await self.batcher.encode(key[-1])
        vector = encoded.encoding.vector
        arrays = vector.cls.nbytes + vector.ot_indices.nbytes + vector.ot_values.nbytes
        self._cache.put("vectors", key, encoded.encoding, size=arrays + len(key[-1].encode()))
        return encoded

    async def _remembered(
        self, what: str, body: SearchOptions, make: Callable[[], Awaitable[SearchResponse]]
    ) -> SearchResponse:
        if not (self._cache.is_on and self.searcher.store.exclusive):
            return await make()
        began = perf_counter()
        request = body.model_dump_json(by_alias=True, exclude={"timeout_ms", "fingerprint", "index"})
        key = (self._serial, self.build.journal, what, request)
        if (stored := self._cache.get("answers", key)) is None:
            return await self._flights.join(key, partial(self._make, key, make))
        answer = SearchResponse.model_validate_json(stored)
        answer.meta.took_ms = {"cache": round(1000 * (perf_counter() - began), 3)}
        return answer

    async def _make(
        self, key: tuple[int, int, str, str], make: Callable[[], Awaitable[SearchResponse]]
    ) -> SearchResponse:
        with self.held():
            answer = await make()
        stored = answer.model_dump_json(exclude_none=True).encode()
        self._cache.put("answers", key, stored, size=len(stored) + len(key[2]) + len(key[3]))
        return answer

    def _enter(self) -> None:
        self._uses += 1
        self._idle.clear()

    def _leave(self) -> None:
        self._uses -= 1
        if not self._uses:
            self._idle.set()


class Desks(Protocol):
    """Where searches get their desk."""

    def desk(self, index: str) -> AbstractAsyncContextManager[Desk]:
        """The opened index of this name, held until the block ends; errors as `Serving.desk`."""
