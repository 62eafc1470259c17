"""A client of the service, blocking and asynchronous, whose answers are the service's own types.

It needs httpx and pydantic, and loads neither a web framework nor an engine. What a request is and how an answer is
read stands in `service.calls`; the two clients differ in how they wait. 429 and 503 are asked again after the time that
the service names; every request may be repeated, so a caller need not tell which.
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import httpx
from pydantic import BaseModel

from service import calls
from service.calls import Call, EncodeKeywords, ExplainKeywords, SearchKeywords, ServiceError
from service.explain_schemas import EncodeResponse, ExplainResponse
from service.schemas import DocumentIn, DocumentOut, PublishedIndexOut, ResultOut, SearchResponse, WrittenOut

__all__ = ["AsyncClient", "Client", "NoAnswer", "SearchKeywords", "ServiceError", "flat_metadata"]

URL = "http://localhost:8000"

RETRIED = {429, 503}
FIRST_PAUSE_S = 0.25
"""Before the first repetition, where the answer names no time; doubled at each one."""

Answer = TypeVar("Answer", bound=BaseModel)


class NoAnswer(ConnectionError):
    """Nothing answered at this address, or not in time."""


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
        return self._send(calls.search(query, options))

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
        return self._send(calls.similar(id, options))

    def batch(self, queries: Sequence[str], **options: Unpack[SearchKeywords]) -> list[SearchResponse | ServiceError]:
        """What became of each of many queries, in their order: its answer, or why it has none.

        Raises:
            ServiceError, NoAnswer: As `search`, when the request as a whole failed.
        """
        return [calls.outcome(each) for each in self._send(calls.batch(queries, options)).answers]

    def explain(self, query: str, **options: Unpack[ExplainKeywords]) -> ExplainResponse:
        """Why a document (`id`), or any text (`text`), has its score; errors as `search`."""
        return self._send(calls.explain(query, options))

    def encode(self, texts: Sequence[str], **options: Unpack[EncodeKeywords]) -> EncodeResponse:
        """Both vectors of each text; errors as `search`."""
        return self._send(calls.encode(texts, options))

    def indexes(self) -> list[PublishedIndexOut]:
        """The indexes that can be searched; errors as `search`."""
        return self._send(calls.indexes()).indexes

    def document(self, id: str, *, index: str | None = None) -> DocumentOut:
        """A document as it is stored; errors as `search`."""
        return self._send(calls.document("GET", id, index, DocumentOut))

    def put(self, id: str, document: DocumentIn, *, index: str | None = None) -> WrittenOut:
        """Store a document, or replace it; errors as `search`."""
        return self._send(calls.document("PUT", id, index, WrittenOut, document))

    def delete(self, id: str, *, index: str | None = None) -> WrittenOut:
        """Remove a document; errors as `search`."""
        return self._send(calls.document("DELETE", id, index, WrittenOut))

    def _send(self, call: Call[Answer]) -> Answer:
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
        return await self._send(calls.search(query, options))

    async def pages(self, query: str, **options: Unpack[SearchKeywords]) -> AsyncIterator[SearchResponse]:
        """As `Client.pages`."""
        answer = await self.search(query, **options)
        yield answer
        while answer.next_cursor:
            answer = await self.search(query, **(options | {"cursor": answer.next_cursor}))
            yield answer

    async def similar(self, id: str, **options: Unpack[SearchKeywords]) -> SearchResponse:
        """As `Client.similar`."""
        return await self._send(calls.similar(id, options))

    async def batch(
        self, queries: Sequence[str], **options: Unpack[SearchKeywords]
    ) -> list[SearchResponse | ServiceError]:
        """As `Client.batch`."""
        return [calls.outcome(each) for each in (await self._send(calls.batch(queries, options))).answers]

    async def explain(self, query: str, **options: Unpack[ExplainKeywords]) -> ExplainResponse:
        """As `Client.explain`."""
        return await self._send(calls.explain(query, options))

    async def encode(self, texts: Sequence[str], **options: Unpack[EncodeKeywords]) -> EncodeResponse:
        """As `Client.encode`."""
        return await self._send(calls.encode(texts, options))

    async def indexes(self) -> list[PublishedIndexOut]:
        """As `Client.indexes`."""
        return (await self._send(calls.indexes())).indexes

    async def document(self, id: str, *, index: str | None = None) -> DocumentOut:
        """As `Client.document`."""
        return await self._send(calls.document("GET", id, index, DocumentOut))

    async def put(self, id: str, document: DocumentIn, *, index: str | None = None) -> WrittenOut:
        """As `Client.put`."""
        return await self._send(calls.document("PUT", id, index, WrittenOut, document))

    async def delete(self, id: str, *, index: str | None = None) -> WrittenOut:
        """As `Client.delete`."""
        return await self._send(calls.document("DELETE", id, index, WrittenOut))

    async def _send(self, call: Call[Answer]) -> Answer:
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


def _no_answer(url: httpx.URL, error: httpx.TransportError) -> NoAnswer:
    return NoAnswer(f"no answer from {url}: {str(error) or type(error).__name__}; does `dupmae serve` run there?")
