"""A client of the service, blocking and asynchronous, whose answers are the service's own types.

It needs httpx and pydantic, and loads neither a web framework nor an engine. What a request is and how an answer is
read stands once; the two clients differ in how they wait. 429 and 503 are asked again after the time that the service
names; every request may be repeated, so a caller need not tell which.
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, Self, TypedDict, TypeVar, Unpack
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ValidationError

from indexer.grouping import GroupBy
from indexer.store import Mode
from service.schemas import DocumentIn, DocumentOut, Problem, ResultOut, SearchResponse, With, WrittenOut

URL = "http://localhost:8000"

RETRIED = {429, 503}
FIRST_PAUSE_S = 0.25
"""Before the first repetition, where the answer names no time; doubled at each one."""

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


class NoAnswer(ConnectionError):
    """Nothing answered at this address, or not in time."""


@dataclass(frozen=True, slots=True)
class _Call(Generic[Answer]):
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


class Client:
    """Asks one service, one request after the other; may be shared by threads. Close it, or use it in `with`.

    Args:
        url: Where the service is.
        key: Its key, if it wants one.
        timeout_s: Longest wait for an answer, and for a time to ask again.
        retries: How often a request is repeated after 429 or 503, or when no connection was made.
        transport: Another way to the service than a socket.
    """

    def __init__(
        self,
        url: str = URL,
        *,
        key: str | None = None,
        timeout_s: float = 10.0,
        retries: int = 2,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._pause = _pauses(timeout_s, retries)
        self._http = httpx.Client(
            base_url=url,
            headers=_headers(key),
            timeout=timeout_s,
            transport=transport or httpx.HTTPTransport(retries=retries),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    def search(self, query: str, **options: Unpack[SearchKeywords]) -> SearchResponse:
        """The best documents for a query.

        Raises:
            ServiceError: The service refused the request, or could not answer it.
            NoAnswer: It could not be reached.
        """
        return self._send(_search(query, options))

    def pages(self, query: str, **options: Unpack[SearchKeywords]) -> Iterator[SearchResponse]:
        """The answers to one query, `limit` results each, until there are no more or `depth` is reached.

        Raises:
            ServiceError, NoAnswer: As `search`; with status 410 when the build that the first page came from has gone.
        """
        answer = self.search(query, **options)
        yield answer
        while answer.next_cursor:
            answer = self.search(query, **(options | {"cursor": answer.next_cursor}))
            yield answer

    def similar(self, id: str, **options: Unpack[SearchKeywords]) -> SearchResponse:
        """The documents that are most like a stored one, without itself; errors as `search`."""
        return self._send(_similar(id, options))

    def document(self, id: str, *, index: str | None = None) -> DocumentOut:
        """A document as it is stored; errors as `search`."""
        return self._send(_document("GET", id, index, DocumentOut))

    def put(self, id: str, document: DocumentIn, *, index: str | None = None) -> WrittenOut:
        """Store a document, or replace it; errors as `search`."""
        return self._send(_document("PUT", id, index, WrittenOut, document))

    def delete(self, id: str, *, index: str | None = None) -> WrittenOut:
        """Remove a document; errors as `search`."""
        return self._send(_document("DELETE", id, index, WrittenOut))

    def _send(self, call: _Call[Answer]) -> Answer:
        repeated = 0
        while True:
            try:
                response = self._http.request(**call.sent())
            except httpx.TransportError as error:
                raise _no_answer(self._http.base_url, error) from error
            pause = self._pause(response, repeated)
            if pause is None:
                return call.read(response)
            time.sleep(pause)
            repeated += 1


class AsyncClient:
    """`Client` for asyncio: the same arguments, methods and errors. Belongs to one event loop."""

    def __init__(
        self,
        url: str = URL,
        *,
        key: str | None = None,
        timeout_s: float = 10.0,
        retries: int = 2,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._pause = _pauses(timeout_s, retries)
        self._http = httpx.AsyncClient(
            base_url=url,
            headers=_headers(key),
            timeout=timeout_s,
            transport=transport or httpx.AsyncHTTPTransport(retries=retries),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close its connections."""
        await self._http.aclose()

    async def search(self, query: str, **options: Unpack[SearchKeywords]) -> SearchResponse:
        """As `Client.search`."""
        return await self._send(_search(query, options))

    async def pages(self, query: str, **options: Unpack[SearchKeywords]) -> AsyncIterator[SearchResponse]:
        """As `Client.pages`."""
        answer = await self.search(query, **options)
        yield answer
        while answer.next_cursor:
            answer = await self.search(query, **(options | {"cursor": answer.next_cursor}))
            yield answer

    async def similar(self, id: str, **options: Unpack[SearchKeywords]) -> SearchResponse:
        """As `Client.similar`."""
        return await self._send(_similar(id, options))

    async def document(self, id: str, *, index: str | None = None) -> DocumentOut:
        """As `Client.document`."""
        return await self._send(_document("GET", id, index, DocumentOut))

    async def put(self, id: str, document: DocumentIn, *, index: str | None = None) -> WrittenOut:
        """As `Client.put`."""
        return await self._send(_document("PUT", id, index, WrittenOut, document))

    async def delete(self, id: str, *, index: str | None = None) -> WrittenOut:
        """As `Client.delete`."""
        return await self._send(_document("DELETE", id, index, WrittenOut))

    async def _send(self, call: _Call[Answer]) -> Answer:
        repeated = 0
        while True:
            try:
                response = await self._http.request(**call.sent())
            except httpx.TransportError as error:
                raise _no_answer(self._http.base_url, error) from error
            pause = self._pause(response, repeated)
            if pause is None:
                return call.read(response)
            await asyncio.sleep(pause)
            repeated += 1


def flat_metadata(result: ResultOut) -> dict[str, Any]:
    """What is known of a result besides its text, in one dict, for frameworks that keep one a document.

    The document's own metadata first, then `id`, `title`, `url`, `score`, `parts`, `passage` and, if it was asked for,
    `explain`, which take the place of fields of the same name.
    """
    ours = result.model_dump(exclude={"text", "metadata", "highlights"}, exclude_none=True)
    return result.metadata | ours


def _search(query: str, options: SearchKeywords) -> _Call[SearchResponse]:
    return _Call("POST", "/v1/search", SearchResponse, {"query": query} | _body(options))


def _similar(id: str, options: SearchKeywords) -> _Call[SearchResponse]:
    return _Call("POST", f"{_path(id)}:similar", SearchResponse, _body(options))


def _body(options: SearchKeywords) -> dict[str, Any]:
    return {name.rstrip("_"): value for name, value in options.items()}  # `with` is a word of Python's


def _document(
    method: str, id: str, index: str | None, answer: type[Answer], document: DocumentIn | None = None
) -> _Call[Answer]:
    return _Call(
        method, _path(id), answer, document.model_dump() if document else None, {"index": index} if index else None
    )


def _path(id: str) -> str:
    dots = {".": "%2E", "..": "%2E%2E"}  # which a URL would take for this folder and the one above
    return f"/v1/documents/{dots.get(id, quote(id, safe=''))}"


def _headers(key: str | None) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"} if key else {}


def _pauses(timeout_s: float, retries: int) -> Callable[[httpx.Response, int], float | None]:
    """How long to wait before a request is repeated for the so-manieth time; None to take the answer as it is."""

    def pause(response: httpx.Response, repeated: int) -> float | None:
        if response.status_code not in RETRIED or repeated >= retries:
            return None
        named = response.headers.get("Retry-After", "")
        wait_s = float(named) if named.isdecimal() else FIRST_PAUSE_S * 2**repeated
        wait_s *= 1 + random.random() / 4  # or all who were refused together would come back together
        return wait_s if wait_s <= timeout_s else None

    return pause


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


def _no_answer(url: httpx.URL, error: httpx.TransportError) -> NoAnswer:
    return NoAnswer(f"no answer from {url}: {str(error) or type(error).__name__}; does `dupmae serve` run there?")
