"""What our client asks a service: each request, and how its answer or its refusal is read; nothing is sent here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypedDict, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ValidationError

from indexer.grouping import GroupBy
from indexer.store import Mode
from service.explain_schemas import EncodeResponse, ExplainResponse
from service.schemas import (
    AnswerOut,
    BatchResponse,
    DocumentIn,
    IndexesOut,
    Problem,
    SearchResponse,
    With,
)

SHOWN = 200
"""Characters that an exception repeats of an answer that is not the service's."""

Answer = TypeVar("Answer", bound=BaseModel)


class SearchKeywords(TypedDict, total=False):
    """What a search may be told besides its query: `service.schemas.SearchOptions`, as keyword arguments."""

    index: str
    limit: int
    mode: Mode
    with_: Sequence[With]
    filter: Mapping[str, Any]
    group_by: GroupBy
    min_score: float
    cursor: str
    depth: int
    facets: Sequence[str]
    facet_limit: int
    fingerprint: str
    timeout_ms: int


class ExplainKeywords(TypedDict, total=False):
    """What an explanation may be told besides its query: `service.explain_schemas.ExplainRequest`, likewise."""

    id: str
    text: str
    index: str
    filter: Mapping[str, Any]
    limit: int
    rank: bool
    fingerprint: str
    timeout_ms: int


class EncodeKeywords(TypedDict, total=False):
    """What encoding may be told besides its texts: `service.explain_schemas.EncodeRequest`, likewise."""

    role: Literal["query", "document"]
    index: str
    fingerprint: str
    timeout_ms: int


class ServiceError(Exception):
    """The service refused a request, or could not answer it.

    Attributes:
        problem: What it said; `problem.type` is a stable name, `problem.errors` the wrong fields.
    """

    def __init__(self, problem: Problem) -> None:
        super().__init__(
            f"{problem.status} {problem.title}: {problem.detail} (request {problem.request_id or 'unknown'})"
        )
        self.problem = problem


@dataclass(frozen=True, slots=True)
class Call(Generic[Answer]):
    """A request.

    Attributes:
        method: Of HTTP.
        path: Escaped.
        answer: What a success is read as.
        json: The body.
        params: Of the query string.
    """

    method: str
    path: str
    answer: type[Answer]
    json: Mapping[str, Any] | None = None
    params: Mapping[str, str] | None = None

    def read(self, response: httpx.Response) -> Answer:
        """The answer, or the problem as an exception."""
        if response.is_success:
            return self.answer.model_validate_json(response.content)
        raise ServiceError(_problem(response))

    def sent(self) -> dict[str, Any]:
        """What httpx sends."""
        return {"method": self.method, "url": self.path, "json": self.json, "params": self.params}


def search(query: str, options: SearchKeywords) -> Call[SearchResponse]:
    """One search."""
    return Call("POST", "/v1/search", SearchResponse, {"query": query} | _body(options))


def similar(id: str, options: SearchKeywords) -> Call[SearchResponse]:
    """What is like a stored document."""
    return Call("POST", f"{_path(id)}:similar", SearchResponse, _body(options))


def batch(queries: Sequence[str], options: SearchKeywords) -> Call[BatchResponse]:
    """Many searches that differ in their queries."""
    searches = [{"query": query} | _body(options) for query in queries]
    return Call("POST", "/v1/search:batch", BatchResponse, {"searches": searches})


def outcome(each: AnswerOut) -> SearchResponse | ServiceError:
    """What became of one search of a batch."""
    if each.answer is not None:
        return each.answer
    assert each.problem is not None, each
    return ServiceError(each.problem)


def explain(query: str, options: ExplainKeywords) -> Call[ExplainResponse]:
    """Why a document, or a text, has its score."""
    return Call("POST", "/v1/explain", ExplainResponse, {"query": query, **options})


def encode(texts: Sequence[str], options: EncodeKeywords) -> Call[EncodeResponse]:
    """The vectors of some texts."""
    return Call("POST", "/v1/encode", EncodeResponse, {"texts": list(texts), **options})


def indexes() -> Call[IndexesOut]:
    """What can be searched."""
    return Call("GET", "/v1/indexes", IndexesOut)


def _body(options: SearchKeywords) -> dict[str, Any]:
    return {name.rstrip("_"): value for name, value in options.items()}  # `with` is a word of Python's


def document(
    method: str, id: str, index: str | None, answer: type[Answer], document: DocumentIn | None = None
) -> Call[Answer]:
    """A stored document: to read, to put or to delete."""
    return Call(
        method, _path(id), answer, document.model_dump() if document else None, {"index": index} if index else None
    )


def _path(id: str) -> str:
    dots = {".": "%2E", "..": "%2E%2E"}  # which a URL would take for this folder and the one above
    return f"/v1/documents/{dots.get(id, quote(id, safe=''))}"


def _problem(response: httpx.Response) -> Problem:
    """What the service said; if it was somebody before it, what that was."""
    try:
        return Problem.model_validate_json(response.content)
    except ValidationError:
        return Problem(
            type="about:blank",
            title=response.reason_phrase or "unknown status",
            status=response.status_code,
            detail=response.text[:SHOWN] or "no text",
            request_id=response.headers.get("X-Request-ID", ""),
        )
