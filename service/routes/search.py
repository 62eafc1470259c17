"""`POST /v1/search`."""

import asyncio
import reprlib
from collections.abc import Coroutine
from time import perf_counter
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Request
from fastapi.responses import Response

from service.caller import Caller
from service.desk import Desk
from service.metrics import Metrics
from service.problems import BadRequest, Problem, WrongArtifact
from service.render import render, respond
from service.routes.state import AppMetrics, AppServing, AppSettings, may_confined
from service.schemas import SearchRequest, SearchResponse
from service.settings import Settings

PATH = "/v1/search"
ERRORS = (400, 401, 403, 404, 409, 413, 415, 422, 429, 503, 504)

CALLER_GONE = 499
"""The status that the log shows for a caller who hung up, as nginx has it; nobody receives it."""


async def require_json(request: Request) -> None:
    """Refuse a body that does not say it is JSON, instead of guessing."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise HTTPException(415, f"content type is {media_type or 'absent'}; send application/json")


router = APIRouter(tags=["search"], dependencies=[Depends(require_json)])


@router.post(
    PATH,
    response_model=SearchResponse,
    summary="Find documents",
    responses={status: {"model": Problem} for status in ERRORS},
)
async def search(
    request: Request,
    body: SearchRequest,
    caller: Annotated[Caller, Depends(may_confined("search"))],
    serving: AppServing,
    metrics: AppMetrics,
    settings: AppSettings,
) -> Response:
    """The best documents of one index for one query, each with an exact score."""
    request.state.log |= {"mode": body.mode, "index": body.index or settings.index}
    if settings.log_queries:
        request.state.log["query"] = body.query
    _check_bounds(body, settings)
    timeout_ms = min(body.timeout_ms or settings.timeout_ms, settings.timeout_ms)
    deadline = asyncio.get_running_loop().time() + timeout_ms / 1000
    index = caller.index(body.index or settings.index)
    async with asyncio.timeout_at(deadline), serving.desk(index) as desk:
        _check_artifact(body, desk)
        answer = await _unless_gone(request, _answer(desk, body, metrics, deadline))
    if answer is None:
        return Response(status_code=CALLER_GONE)
    request.state.log["results"] = len(answer.results)
    return Response(answer.model_dump_json(exclude_none=True), media_type="application/json")


async def _answer(desk: Desk, body: SearchRequest, metrics: Metrics, deadline: float) -> SearchResponse:
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
    metrics.searched(searcher.build.index, took, batch=encoded.batch, truncated=encoding.truncated, found=bool(hits))
    response = respond(searcher, encoding, results, mode=body.mode, complete=complete, took=took)
    response.meta.index.documents = desk.build.documents
    return response


async def _unless_gone(request: Request, work: Coroutine[Any, Any, SearchResponse]) -> SearchResponse | None:
    """The outcome of `work`, or None when the caller hung up first; then `work` is cancelled."""
    working = asyncio.create_task(work)
    gone = asyncio.create_task(_hung_up(request))
    try:
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        working.cancel()
        gone.cancel()


async def _hung_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _check_bounds(body: SearchRequest, settings: Settings) -> None:
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
