"""Errors in the words of the clients that asked: OpenAI's and text-embeddings-inference's read no problem+json.

Every error is made as a problem, wherever it is found; on the routes of those clients this layer says the same in their
shape. Status, headers and text stay.
"""

import re
from collections.abc import Callable
from typing import NamedTuple

from pydantic import BaseModel
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.schemas import PROBLEM_TYPE, Problem


class OpenAIFault(BaseModel):
    """What went wrong, for OpenAI's clients: `code` is the problem's name, `param` the first wrong field."""

    message: str
    type: str
    param: str | None
    code: str


class OpenAIErrorOut(BaseModel):
    """The body of an error on OpenAI's routes."""

    error: OpenAIFault


class TeiErrorOut(BaseModel):
    """The body of an error on text-embeddings-inference's routes."""

    error: str
    error_type: str


def _openai(problem: Problem) -> BaseModel:
    kinds = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
    kind = kinds.get(problem.status, "invalid_request_error" if problem.status < 500 else "server_error")
    param = problem.errors[0].field if problem.errors else None
    fault = OpenAIFault(message=problem.detail, type=kind, param=param, code=problem.type.rpartition(":")[2])
    return OpenAIErrorOut(error=fault)


def _tei(problem: Problem) -> BaseModel:
    kinds = {429: "Overloaded", 503: "Unhealthy"}
    kind = kinds.get(problem.status, "Validation" if problem.status < 500 else "Backend")
    return TeiErrorOut(error=problem.detail, error_type=kind)


class Dialect(NamedTuple):
    """Paths, and how an error is said there."""

    paths: re.Pattern[str]
    say: Callable[[Problem], BaseModel]


DIALECTS = (
    Dialect(re.compile(r"/v1/(embeddings|models(/.*)?)", re.DOTALL), _openai),
    Dialect(re.compile(r"/|/embed|/embed_sparse|/tokenize|/info|/health"), _tei),
)


def translated(path: str, body: bytes) -> bytes | None:
    """A problem's body in the words of the clients that ask for this path; None where they read problems."""
    say = next((dialect.say for dialect in DIALECTS if dialect.paths.fullmatch(path)), None)
    return say(Problem.model_validate_json(body)).model_dump_json().encode() if say else None


class Dialects:
    """Translates every problem that passes on its way out."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] != "http" or not any(dialect.paths.fullmatch(scope["path"]) for dialect in DIALECTS):
            await self._app(scope, receive, send)
            return
        held: list[Message] = []

        async def send_translated(message: Message) -> None:
            if message["type"] == "http.response.start" and _is_problem(message):
                held.append(message)
                return
            if held and (body := translated(scope["path"], message["body"])):
                start, message = held.pop(), {**message, "body": body}
                headers = MutableHeaders(scope=start)
                headers["content-type"], headers["content-length"] = "application/json", str(len(body))
                await send(start)
            await send(message)

        await self._app(scope, receive, send_translated)


def _is_problem(start: Message) -> bool:
    return Headers(scope=start).get("content-type") == PROBLEM_TYPE
