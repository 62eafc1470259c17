"""`POST /v1/search`."""

from typing import Annotated

from fastapi import APIRouter, Body, Request
from fastapi.responses import Response

from service.answering import Answering
from service.examples import SEARCH
from service.routes.reply import JsonRoute, problems, reply, unless_gone
from service.routes.state import SearchCaller
from service.schemas import SearchRequest, SearchResponse
from service.settings import Settings

PATH = "/v1/search"
ERRORS = (400, 401, 403, 404, 409, 410, 413, 415, 422, 429, 503, 504)

router = APIRouter(tags=["search"], route_class=JsonRoute)


@router.post(PATH, response_model=SearchResponse, summary="Find documents", responses=problems(*ERRORS))
async def search(
    request: Request,
    body: Annotated[SearchRequest, Body(openapi_examples=SEARCH)],
    caller: SearchCaller,
) -> Response:
    """The best documents of one index for one query, each with an exact score."""
    answering: Answering = request.app.state.answering  # no dependencies, which are resolved anew for each
    settings: Settings = request.app.state.settings
    request.state.log |= {"mode": body.mode, "index": body.index or settings.index}
    if settings.log_queries:
        request.state.log["query"] = body.query
    deadline = answering.deadline(body.timeout_ms)
    answer = await unless_gone(request, answering.search(body, caller, deadline=deadline))
    if answer is not None:
        request.state.log["results"] = len(answer.results)
    return reply(answer)
