"""How a search is run: its bounds, one desk from beginning to end, one deadline, one page of hits.

Whatever route a search came by, it is answered here, so that no route forgets a bound or a metric.
"""

import asyncio
import reprlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from time import perf_counter
from typing import NamedTuple, TypeVar

from indexer.filters import joined
from indexer.grouping import Wanted
from indexer.store import FacetCount, Filter
from model.encoder import Encoding
from service.caller import Caller
from service.cursors import Cursor, CursorExpired, Cursors, InvalidCursor, digest
from service.desk import Desk, Desks
from service.likeness import likeness
from service.metrics import Metrics
from service.paging import Page, first_page, page
from service.problems import BadRequest, WrongArtifact
from service.render import render, respond
from service.schemas import FacetOut, ResultOut, SearchOptions, SearchRequest, SearchResponse
from service.searcher import Searcher
from service.settings import Settings
from service.spans import traced

Options = TypeVar("Options", bound=SearchOptions)


class _Asked(NamedTuple):
    """What is searched with, however it came about; `took` in seconds by stage."""

    text: str
    encoding: Encoding
    took: dict[str, float]
    batch: int = 0

    @property
    def is_query(self) -> bool:
        """Whether somebody wrote it, or else a document stands for it."""
        return "encode" in self.took


class _Worked(NamedTuple):
    page: Page
    facets: dict[str, list[FacetOut]] | None
    results: list[ResultOut]


class Answering:
    """Answers the searches of one app."""

    def __init__(self, serving: Desks, settings: Settings, metrics: Metrics, cursors: Cursors) -> None:
        self._serving = serving
        self._settings = settings
        self._metrics = metrics
        self._cursors = cursors

    def deadline(self, timeout_ms: int | None) -> float:
        """When a request that begins now must be answered, on the event loop's clock."""
        most = self._settings.timeout_ms
        return asyncio.get_running_loop().time() + min(timeout_ms or most, most) / 1000

    async def search(self, body: SearchRequest, caller: Caller, *, deadline: float) -> SearchResponse:
        """The answer to one search.

        Raises:
            BadRequest: It is out of bounds.
            Forbidden: The caller may not use the index, or the index does not know its tenant.
            WrongArtifact: It pins another artifact than the one served.
            InvalidCursor, CursorExpired: Its cursor is not one of this search, or no longer.
            TimeoutError: The deadline passed.
            IndexNotFound, NotReady: As `Serving.desk`.
            QueueFull, QueryRefused: As `MicroBatcher.encode`.
            StoreError: As `Searcher.retrieve`.
        """
        check_query(body.query, self._settings)
        self._check_options(body)
        async with self._desk(body, caller, deadline) as (desk, body):
            at = self._begin(desk, body, "query", body.query)
            what = f"query for {caller.tenant}"  # whose scores know nothing of the others' documents
            make = partial(self._search, desk, body, caller, at)
            answer = self._counted(desk, await desk.answer(what, body, make))
        return _told(caller, answer)

    async def similar(
        self, document_id: str, body: SearchOptions, caller: Caller, *, deadline: float
    ) -> SearchResponse:
        """The documents that are like a stored one, itself left out.

        Raises:
            DocumentNotFound: The index holds no such document, or not one that the caller may see.
            BadRequest, Forbidden, WrongArtifact, InvalidCursor, CursorExpired, TimeoutError, IndexNotFound, NotReady,
                StoreError: As `search`.
        """
        self._check_options(body)
        async with self._desk(body, caller, deadline) as (desk, body):
            at = self._begin(desk, body, "document", document_id)
            what = f"like {document_id!r} for {caller.tenant}"  # a filter does not say who may see the document itself
            make = partial(self._similar, desk, document_id, body, caller, at)
            answer = self._counted(desk, await desk.answer(what, body, make))
        return _told(caller, answer)

    async def batch(
        self, bodies: Sequence[SearchRequest | Exception], caller: Caller, *, deadline: float
    ) -> list[SearchResponse | Exception]:
        """What became of each search, in their order: its answer, or what `search` raised.

        They begin together, so the batcher has them together. One that could not be read is given, and returned, as the
        error that says so.
        """
        return list(await asyncio.gather(*(self._outcome(body, caller, deadline) for body in bodies)))

    async def _search(self, desk: Desk, body: SearchRequest, caller: Caller, at: Cursor) -> SearchResponse:
        """Worked out, without a deadline: who waits has one, and the last to leave ends it."""
        encoded = await desk.encode_query(body.query, caller.tenant)
        took = {"queue": encoded.queued, "encode": encoded.encoded}
        encoding = desk.searcher.asked(encoded.encoding, blindly=caller.tenant is not None)
        asked = _Asked(body.query, encoding, took, encoded.batch)
        return await self._answer(desk, body, asked, _wanted(body, body.filter), at)

    async def _similar(
        self, desk: Desk, document_id: str, body: SearchOptions, caller: Caller, at: Cursor
    ) -> SearchResponse:
        """As `_search`."""
        began = perf_counter()
        text, encoding = await desk.run(likeness, desk.searcher, document_id, caller)
        asked = _Asked(text, encoding, {"look_up": perf_counter() - began})
        others = joined(body.filter, "must_not", {"key": "doc_id", "match": {"value": document_id}})
        return await self._answer(desk, body, asked, _wanted(body, others), at)

    async def _outcome(
        self, body: SearchRequest | Exception, caller: Caller, deadline: float
    ) -> SearchResponse | Exception:
        if isinstance(body, Exception):
            return body
        try:
            return await self.search(body, caller, deadline=min(deadline, self.deadline(body.timeout_ms)))
        except Exception as error:  # noqa: BLE001 - whatever fails one search, the others have their answers
            return error

    @asynccontextmanager
    async def _desk(self, body: Options, caller: Caller, deadline: float) -> AsyncIterator[tuple[Desk, Options]]:
        """The desk of an index, and the same search among what its caller may see: all that follows filters by that."""
        index = caller.index(body.index or self._settings.index)
        async with asyncio.timeout_at(deadline), self._serving.desk(index) as desk:
            check_artifact(body.fingerprint, desk)
            yield desk, body.model_copy(update={"filter": caller.filter(body.filter, desk.build)})

    async def _answer(
        self, desk: Desk, body: SearchOptions, asked: _Asked, wanted: Wanted, at: Cursor
    ) -> SearchResponse:
        searcher, encoding = desk.searcher, asked.encoding
        worked, took = await desk.go_on(_work, searcher, body, asked, wanted, at)
        desk.proven = True
        took = asked.took | took
        found = bool(at.offset or worked.results)
        self._metrics.searched(searcher.build.index, took, batch=asked.batch, truncated=encoding.truncated, found=found)
        if asked.is_query and not at.offset:
            self._metrics.drift.searched(searcher.build.index, encoding, body.mode, worked.page.hits)
        response = respond(searcher, encoding, worked.results, mode=body.mode, complete=worked.page.complete, took=took)
        response.meta.index.documents = desk.build.documents
        response.facets = worked.facets
        following = worked.page.following
        response.next_cursor = self._cursors.write(following) if following else None
        return response

    def _counted(self, desk: Desk, answer: SearchResponse) -> SearchResponse:
        """An answer that was remembered is a search too."""
        if (took_ms := answer.meta.took_ms.get("cache")) is not None:
            took, query = {"cache": took_ms / 1000}, answer.meta.query
            found = bool(answer.results)
            self._metrics.searched(desk.build.index, took, batch=0, truncated=query.truncated, found=found)
        return answer

    def _begin(self, desk: Desk, body: SearchOptions, kind: str, what: str) -> Cursor:
        """Where the page that is asked for begins."""
        index, build = desk.build.index, desk.build.id
        search = digest([index, kind, what, body.mode, body.filter, body.group_by, body.min_score, body.depth])
        if body.cursor is None:
            return first_page(build, search, body.depth or self._settings.depth)
        at = self._cursors.read(body.cursor)
        if at.search != search:
            raise InvalidCursor(
                f"this cursor is of another search; send the same {kind}, index, mode, filter, group_by, min_score and "
                "depth as for the page before, or no cursor to begin again"
            )
        if at.build != build:
            raise CursorExpired(
                f"this cursor is of build {at.build}, and index {index!r} answers from build {build} now; begin again "
                "without the cursor"
            )
        return at

    def _check_options(self, body: SearchOptions) -> None:
        settings = self._settings
        check_limit(body.limit, settings)
        if body.depth is not None and body.depth > settings.max_depth:
            most = f"DUPMAE_MAX_DEPTH={settings.max_depth}"
            raise BadRequest("depth", f"{body.depth} candidates; at most {most} are looked at")
        if body.min_score is not None and body.mode == "rrf":
            raise BadRequest(
                "min_score", "mode rrf scores ranks and not matches; use fused, cls or ot, or leave it out"
            )


def _work(
    searcher: Searcher, body: SearchOptions, asked: _Asked, wanted: Wanted, at: Cursor
) -> tuple[_Worked, dict[str, float]]:
    """What a thread does for something encoded, in one go; and seconds by stage."""
    began = perf_counter()
    found = page(searcher, asked.encoding.vector, wanted, at, body.limit)
    took = {"retrieve": perf_counter() - began}
    facets = None
    if body.facets:
        began = perf_counter()
        facets = _facets(searcher, body)
        took["facets"] = perf_counter() - began
    began = perf_counter()
    results = render(searcher, asked.text, asked.encoding, found.hits, with_=body.with_)
    took["render"] = perf_counter() - began
    return _Worked(found, facets, results), took


def _told(caller: Caller, answer: SearchResponse) -> SearchResponse:
    """The answer without what counts everybody's documents, for one who may not see them; others may share it."""
    if not caller.tenant:
        return answer
    index = answer.meta.index.model_copy(update={"documents": None})
    return answer.model_copy(update={"meta": answer.meta.model_copy(update={"index": index})})


def _wanted(body: SearchOptions, filter: Filter | None) -> Wanted:
    return Wanted(body.mode, filter, body.group_by, body.min_score)


@traced("facets")
def _facets(searcher: Searcher, body: SearchOptions) -> dict[str, list[FacetOut]]:
    def counted(field: str) -> list[FacetCount]:
        return searcher.store.facets(field, body.filter, limit=body.facet_limit)

    return {field: [FacetOut(value=each.value, count=each.count) for each in counted(field)] for field in body.facets}


def check_query(query: str, settings: Settings) -> None:
    """Raise BadRequest for a query that is too long or says nothing."""
    most = settings.max_query_chars
    if len(query) > most:
        raise BadRequest("query", f"{len(query)} characters; at most {most} are taken")
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
