"""`POST /v1/documents/{id}:similar`."""

from typing import Annotated

from fastapi import APIRouter, Body, Request
from fastapi.responses import Response

from service.examples import SIMILAR
from service.routes.documents import PATH, DocumentId
from service.routes.reply import JsonRoute, problems, reply, unless_gone
from service.routes.search import ERRORS
from service.routes.state import AppAnswering, AppSettings, SearchCaller
from service.schemas import SearchOptions, SearchResponse

router = APIRouter(tags=["documents"], route_class=JsonRoute)


@router.post(
    f"{PATH}:similar",
    response_model=SearchResponse,
    summary="Find documents like a stored one",
    responses=problems(*ERRORS),
)
async def similar(
    request: Request,
    id: DocumentId,
    body: Annotated[SearchOptions, Body(openapi_examples=SIMILAR)],
    caller: SearchCaller,
    answering: AppAnswering,
    settings: AppSettings,
) -> Response:
    """As a search whose query is the document, by its stored vectors; itself is left out."""
    request.state.log |= {"mode": body.mode, "index": body.index or settings.index}
    deadline = answering.deadline(body.timeout_ms)
    answer = await unless_gone(request, answering.similar(id, body, caller, deadline=deadline))
    if answer is not None:
        request.state.log["results"] = len(answer.results)
    return reply(answer)
