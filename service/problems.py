"""Every error of the service as `application/problem+json` (RFC 9457), in one table.

A `type` is a stable name a program may switch on; `detail` is for people and names the remedy. What is not in the table
is a defect of ours: 500, the trace in the log under the request id and never in the answer.
"""

import http
import logging
from collections.abc import Mapping
from typing import NamedTuple, cast

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match

from indexer.catalog import NoEarlierBuild
from indexer.live import DocumentHeld
from indexer.release import PublicationBlocked
from indexer.store import BuildLocked, BuildNotReady, IndexNotFound, InvalidFacet, InvalidFilter, StoreError
from model.artifact import ArtifactError
from model.encoder import NoWords
from service.administration import NotAdministrable, ReleaseStopped, ReleaseUnderWay
from service.batching import BatcherClosed
from service.caller import Caller, Forbidden
from service.cursors import CursorExpired, InvalidCursor
from service.dialects import translated
from service.queueing import QueueFull
from service.schemas import PROBLEM_TYPE
from service.schemas import FieldError as FieldError
from service.schemas import Problem as Problem
from service.searcher import DocumentNotFound, QueryRefused
from service.serving import NotReady, NotWritable, SwitchFailed

LOGGER = logging.getLogger("dupmae.problems")

REQUEST_ID = "X-Request-ID"
RETRY_AFTER_S = 1

MAX_ERRORS = 20
"""Wrong fields that one answer names; a body of nothing else would come back several times its size."""


class BadRequest(Exception):
    """A request that is well formed and still cannot be answered; the field, and why."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(reason)
        self.field = field


class WrongArtifact(Exception):
    """The request pins an artifact that is not the one served."""


class ModelNotFound(LookupError):
    """The request names a model that is not the one served."""


class Kind(NamedTuple):
    """How one kind of error is answered.

    Attributes:
        retry: Whether the same request may succeed later.
        inward: Whether the message may name indexes or paths, which is not for a caller who may not see all.
    """

    status: int
    name: str
    retry: bool = False
    inward: bool = False


KINDS: Mapping[type[Exception], Kind] = {
    QueryRefused: Kind(422, "query-refused"),
    NoWords: Kind(422, "text-refused"),
    DocumentNotFound: Kind(404, "document-not-found"),
    NotWritable: Kind(403, "not-writable"),
    Forbidden: Kind(403, "forbidden"),
    DocumentHeld: Kind(409, "document-held"),
    NotAdministrable: Kind(403, "not-administrable"),
    InvalidFilter: Kind(422, "invalid-filter"),
    ModelNotFound: Kind(404, "model-not-found"),
    InvalidFacet: Kind(422, "invalid-facet"),
    InvalidCursor: Kind(422, "invalid-cursor"),
    CursorExpired: Kind(410, "cursor-expired"),
    IndexNotFound: Kind(404, "index-not-found", inward=True),
    WrongArtifact: Kind(409, "wrong-artifact"),
    ReleaseUnderWay: Kind(409, "release-under-way", retry=True),
    PublicationBlocked: Kind(409, "publication-blocked"),
    BuildNotReady: Kind(409, "build-not-ready"),
    NoEarlierBuild: Kind(409, "no-earlier-build"),
    BuildLocked: Kind(409, "build-locked", retry=True),
    ArtifactError: Kind(409, "artifact-missing"),
    QueueFull: Kind(429, "queue-full", retry=True),
    NotReady: Kind(503, "not-ready", retry=True, inward=True),
    StoreError: Kind(503, "store-unavailable", retry=True, inward=True),
    SwitchFailed: Kind(503, "switch-failed", retry=True),
    ReleaseStopped: Kind(503, "shutting-down", retry=True),
    BatcherClosed: Kind(503, "shutting-down", retry=True),
    TimeoutError: Kind(504, "deadline-exceeded"),
}


def install(app: FastAPI) -> None:
    """Answer every error of `app` with a problem."""
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(BadRequest, _bad_request)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _unexpected)
    for error in KINDS:
        app.add_exception_handler(error, _known)


def problem(
    request_id: str,
    status: int,
    name: str,
    detail: str,
    *,
    errors: list[FieldError] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """The response for one error; `name` becomes its `type`."""
    body = Problem(
        type=f"urn:dupmae:{name}",
        title=http.HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        request_id=request_id,
        errors=errors,
    )
    content = body.model_dump_json(exclude_none=True)
    return Response(content, status, {**(headers or {}), REQUEST_ID: request_id}, media_type=PROBLEM_TYPE)


async def problem_of(request: Request, error: Exception) -> Problem:
    """The body of what `error` would be answered with, for an answer that holds several."""
    handlers = request.app.exception_handlers
    handler = next(handlers[each] for each in type(error).__mro__ if each in handlers)
    response: Response = await handler(request, error)
    if response.status_code == http.HTTPStatus.INTERNAL_SERVER_ERROR:
        LOGGER.error("request %s: one of its searches failed", request.state.request_id, exc_info=error)
    return Problem.model_validate_json(bytes(response.body))


async def _known(request: Request, error: Exception) -> Response:
    kind = next(KINDS[each] for each in type(error).__mro__ if each in KINDS)
    headers = {"Retry-After": str(_retry_after_s(error))} if kind.retry else None
    detail = str(error) or "the deadline passed before there was an answer; allow more time with `timeout_ms`"
    caller: Caller = request.state.caller
    if kind.inward and not caller.sees_all:
        detail = "the index cannot be searched now; the service's log says why under this request id"
        LOGGER.warning("request %s: %s", request.state.request_id, error)
    return problem(request.state.request_id, kind.status, kind.name, detail, headers=headers)


def _retry_after_s(error: Exception) -> int:
    return error.retry_after_s if isinstance(error, QueueFull) else RETRY_AFTER_S


async def _bad_request(request: Request, error: Exception) -> Response:
    field = FieldError(field=cast(BadRequest, error).field, message=str(error))
    detail = f"{field.field}: {field.message}"
    return problem(request.state.request_id, 422, "invalid-request", detail, errors=[field])


async def _invalid(request: Request, error: Exception) -> Response:
    found = cast(RequestValidationError, error).errors()
    if found[0]["type"] == "json_invalid":
        detail = f"the body is not JSON: {found[0]['ctx']['error']} at character {found[0]['loc'][-1]}"
        return problem(request.state.request_id, 400, "broken-json", detail)
    errors = [FieldError(field=_field(each["loc"]), message=each["msg"]) for each in found[:MAX_ERRORS]]
    detail = "; ".join(f"{each.field}: {each.message}" for each in errors)
    return problem(request.state.request_id, 422, "invalid-request", detail, errors=errors)


async def _http(request: Request, error: Exception) -> Response:
    raised = cast(HTTPException, error)
    if isinstance(raised.__cause__, ValueError | RecursionError):
        return problem(request.state.request_id, 400, "broken-json", f"the body is not JSON: {raised.__cause__}")
    name = http.HTTPStatus(raised.status_code).phrase.lower().replace(" ", "-")
    headers = {"Allow": _allow(request)} if raised.status_code == 405 else raised.headers
    return problem(request.state.request_id, raised.status_code, name, raised.detail, headers=headers)


def _allow(request: Request) -> str:
    """Every method of a path; the router names those of the first route there."""
    routes = [route for route in request.app.state.routes if route.matches(request.scope)[0] is not Match.NONE]
    return ", ".join(sorted({method for route in routes for method in route.methods}))


async def _unexpected(request: Request, error: Exception) -> Response:
    detail = "an error of the service, not of the request; its log has the trace under this request id"
    answer = problem(request.state.request_id, 500, "internal-error", detail)
    if said := translated(request.url.path, bytes(answer.body)):  # no layer of ours is passed on the way out from here
        return Response(said, 500, {REQUEST_ID: request.state.request_id}, media_type="application/json")
    return answer


def _field(location: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in location if part != "body") or "body"
