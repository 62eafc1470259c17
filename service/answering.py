"""How a search is run: its bounds, one desk from beginning to end, one deadline, one page of hits.

Whatever route a search came by, it is answered here, so that no route forgets a bound or a metric.
"""

import asyncio
import reprlib
from time import perf_counter

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

    async def search(self, body: SearchRequest, *, deadline: float) -> SearchResponse:
        """The answer to one search.

        Raises:
            BadRequest: It is out of bounds.
            WrongArtifact: It pins another artifact than the one served.
            TimeoutError: The deadline passed.
            IndexNotFound, NotReady: As `Serving.desk`.
            QueueFull, QueryRefused: As `MicroBatcher.encode`.
            StoreError: As `Searcher.retrieve`.
        """
        check_query(body.query, self._settings)
        check_limit(body.limit, self._settings)
        index = body.index or self._settings.index
        async with asyncio.timeout_at(deadline), self._serving.desk(index) as desk:
            check_artifact(body.fingerprint, desk)
            return await self._answer(desk, body, deadline)

    async def _answer(self, desk: Desk, body: SearchRequest, deadline: float) -> SearchResponse:
        searcher = desk.searcher
        encoded = await desk.batcher.encode(body.query, deadline=deadline)
        encoding = encoded.encoding
        began = perf_counter()
        hits, complete = await desk.run(
            searcher.retrieve,
            encoding.vector,
            mode=body.mode,
            limit=body.limit,
            filter=body.filter,
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
        response.meta.index.documents = desk.build.documents
        return response


def check_query(query: str, settings: Settings) -> None:
    """Raise BadRequest for a query that is too long or says nothing."""
    if len(query) > settings.max_query_chars:
        raise BadRequest("query", f"{len(query)} characters; at most {settings.max_query_chars} are taken")
    if not query.strip():
        raise BadRequest("query", "only white space; ask with at least one word")


def check_limit(limit: int, settings: Settings) -> None:
    """Raise BadRequest for more results than are returned."""
    if limit > settings.max_limit:
        raise BadRequest("limit", f"{limit} results; at most {settings.max_limit} are returned")


def check_artifact(fingerprint: str | None, desk: Desk) -> None:
    """Raise WrongArtifact if a request pins another artifact than the one served."""
    served = desk.searcher.encoder.fingerprint
    if fingerprint not in {None, served}:
        asked = reprlib.repr(fingerprint)
        raise WrongArtifact(f"this index is served by artifact {served}, not by {asked}; drop `fingerprint`")
