"""How a search is run: its bounds, one desk from beginning to end, one deadline, one page of hits.

Whatever route a search came by, it is answered here, so that no route forgets a bound or a metric.
"""

import asyncio
import reprlib
from time import perf_counter

from service.caller import Caller
from service.desk import Desk
from service.metrics import Metrics
from service.problems import BadRequest, WrongArtifact
from service.render import render, respond
from service.schemas import SearchRequest, SearchResponse
from service.serving import Serving
from service.settings import Settings


class Answering:
    """Answers the searches of one app."""

    def __init__(self, serving: Serving, settings: Settings, metrics: Metrics) -> None:
        self._serving = serving
        self._settings = settings
        self._metrics = metrics

    def deadline(self, timeout_ms: int | None) -> float:
        """When a request that begins now must be answered, on the event loop's clock."""
        most = self._settings.timeout_ms
        return asyncio.get_running_loop().time() + min(timeout_ms or most, most) / 1000

    async def search(self, body: SearchRequest, caller: Caller, *, deadline: float) -> SearchResponse:
        """The answer to one search, from what its caller may see.

        Raises:
            BadRequest: It is out of bounds.
            Forbidden: The caller may not use the index, or the index does not know its tenant.
            WrongArtifact: It pins another artifact than the one served.
            TimeoutError: The deadline passed.
            IndexNotFound, NotReady: As `Serving.desk`.
            QueueFull, QueryRefused: As `MicroBatcher.encode`.
            StoreError: As `Searcher.retrieve`.
        """
        self._check_bounds(body)
        index = caller.index(body.index or self._settings.index)
        async with asyncio.timeout_at(deadline), self._serving.desk(index) as desk:
            _check_artifact(body, desk)
            return await self._answer(desk, body, caller, deadline)

    async def _answer(self, desk: Desk, body: SearchRequest, caller: Caller, deadline: float) -> SearchResponse:
        searcher = desk.searcher
        filter = caller.filter(body.filter, desk.build)
        encoded = await desk.batcher.encode(body.query, deadline=deadline)
        encoding = encoded.encoding
        began = perf_counter()
        hits, complete = await desk.run(
            searcher.retrieve,
            encoding.vector,
            mode=body.mode,
            limit=body.limit,
            filter=filter,
            group_by=body.group_by,
        )
        retrieved = perf_counter()
        results = await desk.run(render, searcher, body.query, encoding, hits, with_=body.with_)
        took = {
            "queue": encoded.queued,
            "encode": encoded.encoded,
            "retrieve": retrieved - began,
            "render": perf_counter() - retrieved,
        }
        self._metrics.searched(
            searcher.build.index, took, batch=encoded.batch, truncated=encoding.truncated, found=bool(hits)
        )
        response = respond(searcher, encoding, results, mode=body.mode, complete=complete, took=took)
        response.meta.index.documents = desk.build.documents if caller.tenant is None else None
        return response

    def _check_bounds(self, body: SearchRequest) -> None:
        settings = self._settings
        if len(body.query) > settings.max_query_chars:
            raise BadRequest("query", f"{len(body.query)} characters; at most {settings.max_query_chars} are taken")
        if not body.query.strip():
            raise BadRequest("query", "only white space; ask with at least one word")
        if body.limit > settings.max_limit:
            raise BadRequest("limit", f"{body.limit} results; at most {settings.max_limit} are returned")


def _check_artifact(body: SearchRequest, desk: Desk) -> None:
    served = desk.searcher.encoder.fingerprint
    if body.fingerprint not in {None, served}:
        asked = reprlib.repr(body.fingerprint)
        raise WrongArtifact(f"this index is served by artifact {served}, not by {asked}; drop `fingerprint`")
