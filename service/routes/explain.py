"""`POST /v1/explain` and `POST /v1/encode`: what the model makes of texts, and of a query and a document."""

from typing import Annotated

from fastapi import APIRouter, Body, Request
from fastapi.responses import Response

from service.encode import encode as encode_texts
from service.examples import ENCODE, EXPLAIN
from service.explain_schemas import EncodeRequest, EncodeResponse, ExplainRequest, ExplainResponse
from service.routes.reply import JsonRoute, problems, reply, unless_gone
from service.routes.state import AppAnswering, AppExplaining, AppServing, AppSettings, SearchCaller

ERRORS = (400, 401, 403, 404, 409, 413, 415, 422, 429, 503, 504)

router = APIRouter(prefix="/v1", route_class=JsonRoute)


@router.post(
    "/explain",
    tags=["search"],
    response_model=ExplainResponse,
    summary="Explain a score",
    responses=problems(*ERRORS),
)
async def explain(
    request: Request,
    body: Annotated[ExplainRequest, Body(openapi_examples=EXPLAIN)],
    caller: SearchCaller,
    answering: AppAnswering,
    explaining: AppExplaining,
    settings: AppSettings,
) -> Response:
    """Why a document, found or not, or any text has the score that it has for a query: by words, exactly."""
    request.state.log |= {"index": body.index or settings.index}
    if settings.log_queries:
        request.state.log["query"] = body.query
    deadline = answering.deadline(body.timeout_ms)
    return reply(await unless_gone(request, explaining.explain(body, caller, deadline=deadline)))


@router.post(
    "/encode",
    tags=["encode"],
    response_model=EncodeResponse,
    summary="Encode texts",
    responses=problems(*ERRORS),
)
async def encode(
    request: Request,
    body: Annotated[EncodeRequest, Body(openapi_examples=ENCODE)],
    caller: SearchCaller,
    answering: AppAnswering,
    serving: AppServing,
    settings: AppSettings,
) -> Response:
    """Both vectors of each text from one pass: the reduced [CLS] vector and the bag of weighted words."""
    request.state.log |= {"index": body.index or settings.index, "texts": len(body.texts)}
    body = body.model_copy(update={"index": caller.index(body.index or settings.index)})
    deadline = answering.deadline(body.timeout_ms)
    return reply(await unless_gone(request, encode_texts(body, serving, settings, deadline=deadline)))
