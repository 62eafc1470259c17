"""`POST /v1/search:batch`: many searches in one request, each answered or refused by itself."""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidatorFunctionWrapHandler, WrapValidator

from service.answering import Answering
from service.caller import Caller
from service.examples import BATCH
from service.problems import BadRequest, problem_of
from service.routes.reply import JsonRoute, problems, reply, unless_gone
from service.routes.search import PATH
from service.routes.state import AppAnswering, AppMetrics, AppSettings, SearchCaller
from service.schemas import AnswerOut, BatchResponse, SearchRequest, SearchResponse

router = APIRouter(tags=["search"], route_class=JsonRoute)


def _or_why_not(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    """A search, or the error that would have failed the others with it."""
    try:
        return validate(value)
    except ValidationError as error:
        return RequestValidationError(error.errors())


class BatchRequest(BaseModel):
    """Searches that do not depend on each other."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={"examples": [{"searches": [{"query": "compress a file"}, {"query": "sort a list"}]}]},
    )

    searches: Annotated[
        list[Annotated[SearchRequest, WrapValidator(_or_why_not)]],
        Field(min_length=1, description="They share one deadline."),
    ]
    timeout_ms: Annotated[int | None, Field(ge=1, description="Give up what is not answered by then.")] = None


@router.post(
    f"{PATH}:batch",
    response_model=BatchResponse,
    summary="Answer many searches",
    responses=problems(400, 401, 403, 413, 415, 422),
)
async def batch(
    request: Request,
    body: Annotated[BatchRequest, Body(openapi_examples=BATCH)],
    caller: SearchCaller,
    answering: AppAnswering,
    metrics: AppMetrics,
    settings: AppSettings,
) -> Response:
    """200 if the request itself is in order; each search has a status of its own, and none fails another."""
    if len(body.searches) > settings.max_searches:
        most = f"DUPMAE_MAX_SEARCHES={settings.max_searches}"
        raise BadRequest("searches", f"{len(body.searches)} searches; at most {most} are taken at once")
    request.state.log["searches"] = len(body.searches)
    if settings.log_queries:
        request.state.log["queries"] = [getattr(search, "query", None) for search in body.searches]
    answer = await unless_gone(request, _answers(request, body, caller, answering))
    if answer is not None:
        for search, each in zip(body.searches, answer.answers, strict=True):
            metrics.requested(getattr(search, "mode", "invalid"), each.status)
    return reply(answer)


async def _answers(request: Request, body: BatchRequest, caller: Caller, answering: Answering) -> BatchResponse:
    deadline = answering.deadline(body.timeout_ms)
    return BatchResponse(
        answers=[
            await _answer(request, each) for each in await answering.batch(body.searches, caller, deadline=deadline)
        ]
    )


async def _answer(request: Request, outcome: SearchResponse | Exception) -> AnswerOut:
    if isinstance(outcome, SearchResponse):
        return AnswerOut(status=200, answer=outcome)
    problem = await problem_of(request, outcome)
    return AnswerOut(status=problem.status, problem=problem)
