"""Whatever a request holds, the answer is a problem with the right status, a request id and no trace; never a 500."""

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from indexer.catalog import open_engine
from indexer.store import Engine, Hit, Store, StoreUnavailable
from service.app import create_app
from service.searcher import Searchers
from service.settings import Settings
from tests.service.conftest import Serve

pytestmark = pytest.mark.anyio

JSON = {"Content-Type": "application/json"}


def check(response: httpx.Response, status: int, name: str) -> dict[str, Any]:
    """The problem in the answer, after checking all that every problem has."""
    assert response.status_code == status, response.text
    assert response.headers["Content-Type"] == "application/problem+json"
    problem: dict[str, Any] = response.json()
    assert problem["type"] == f"urn:dupmae:{name}"
    assert problem["status"] == status
    assert problem["request_id"] == response.headers["X-Request-ID"]
    assert problem["title"]
    assert problem["detail"]
    assert "Traceback" not in response.text
    return problem


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "query"),
        ({"query": ""}, "query"),
        ({"query": " \n\t "}, "query"),
        ({"query": 7}, "query"),
        ({"query": None}, "query"),
        ({"query": "x" * 4_097}, "query"),
        ({"query": "x", "colour": "red"}, "colour"),
        ({"query": "x", "mode": "magic"}, "mode"),
        ({"query": "x", "limit": 0}, "limit"),
        ({"query": "x", "limit": -1}, "limit"),
        ({"query": "x", "limit": 10**9}, "limit"),
        ({"query": "x", "limit": 10**30}, "limit"),
        ({"query": "x", "limit": 1.5}, "limit"),
        ({"query": "x", "limit": "10"}, "limit"),
        ({"query": "x", "limit": True}, "limit"),
        ({"query": "x", "with": ["everything"]}, "with.0"),
        ({"query": "x", "timeout_ms": 0}, "timeout_ms"),
        ({"query": "x", "filter": []}, "filter"),
        ({"query": "x", "index": ""}, "index"),
        ({"query": "x", "index": "../default"}, "index"),
        ({"query": "x", "index": "a" * 64}, "index"),
        ({"query": "x", "index": "a\n"}, "index"),
        ([], "body"),
        ("x", "body"),
    ],
)
async def test_a_field_that_is_wrong_is_named(serve: Serve, body: object, field: str) -> None:
    async with serve() as client:
        problem = check(await client.post("/v1/search", json=body), 422, "invalid-request")
    assert [error["field"] for error in problem["errors"]] == [field]


@pytest.mark.parametrize(
    "content",
    [b"{", b"", b'{"query": "x",}', b"\xff\xfe\xfa", b'{"query": "\xff"}', b"[" * 100_000, b'{"query": NaN'],
)
async def test_a_body_that_is_no_json_is_a_400_or_422(serve: Serve, content: bytes) -> None:
    async with serve() as client:
        response = await client.post("/v1/search", content=content, headers=JSON)
    if content:
        assert response.status_code == 400
        check(response, 400, response.json()["type"].removeprefix("urn:dupmae:"))
    else:
        check(response, 422, "invalid-request")


async def test_half_a_surrogate_pair_is_refused(serve: Serve) -> None:
    async with serve() as client:
        response = await client.post("/v1/search", content=rb'{"query": "\ud800"}', headers=JSON)
        pinned = await client.post("/v1/search", content=rb'{"query": "x", "fingerprint": "\ud800"}', headers=JSON)
    check(response, 422, "invalid-request")
    check(pinned, 409, "wrong-artifact")


async def test_a_body_that_is_no_text_is_told_why(serve: Serve) -> None:
    async with serve() as client:
        response = await client.post("/v1/search", content=b'{"query": "caf\xe9"}', headers=JSON)
    assert "0xe9 in position 14" in check(response, 400, "broken-json")["detail"]


async def test_an_answer_names_no_more_than_twenty_wrong_fields(serve: Serve) -> None:
    async with serve() as client:
        response = await client.post("/v1/search", json={"query": "x"} | {f"field{i}": i for i in range(1_000)})
    assert len(check(response, 422, "invalid-request")["errors"]) == 20


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", ""])
async def test_a_body_that_does_not_say_it_is_json_is_a_415(serve: Serve, content_type: str) -> None:
    async with serve() as client:
        response = await client.post("/v1/search", content=b'{"query": "x"}', headers={"Content-Type": content_type})
    check(response, 415, "unsupported-media-type")


async def test_a_query_of_punctuation_or_of_unknown_letters_is_answered_or_refused_by_name(serve: Serve) -> None:
    async with serve() as client:
        for query in ["?!.", "\u2603", "\u0000", "\ufffd", "日本語", "🦆" * 50, "\u200b"]:
            response = await client.post("/v1/search", json={"query": query})
            if response.status_code != 200:
                check(response, 422, "query-refused")


async def test_a_megabyte_is_refused_by_its_declared_length(serve: Serve) -> None:
    async with serve() as client:
        problem = check(await client.post("/v1/search", json={"query": "x" * 2**20}), 413, "too-large")
    assert "DUPMAE_MAX_BODY_BYTES" in problem["detail"]


async def test_a_body_of_unknown_length_is_refused_at_the_bound_and_its_rest_thrown_away(serve: Serve) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 100:
            sent += 1
            yield b" " * 1_024

    async with serve(max_body_bytes=4_096) as client:
        check(await client.post("/v1/search", content=endless(), headers=JSON), 413, "too-large")
    assert sent == 100


async def test_an_unknown_index_is_a_404_that_names_the_others(serve: Serve) -> None:
    async with serve() as client:
        response = await client.post("/v1/search", json={"query": "x", "index": "missing"})
        problem = check(response, 404, "index-not-found")
    assert "letters" in problem["detail"]


@pytest.mark.parametrize(
    "filter",
    [
        {"must": [{"key": "metadata.year", "match": {"value": 1990}}]},
        {"must": [{"key": "metadata.lang", "match": {"magic": "en"}}]},
        {"sometimes": []},
        {"must": "always"},
    ],
)
async def test_a_filter_outside_the_grammar_or_on_an_undeclared_field_is_a_422(
    serve: Serve, filter: dict[str, Any]
) -> None:
    async with serve() as client:
        check(await client.post("/v1/search", json={"query": "x", "filter": filter}), 422, "invalid-filter")


async def test_an_unknown_path_is_a_404_and_a_wrong_method_a_405(serve: Serve) -> None:
    async with serve() as client:
        check(await client.get("/v2/search"), 404, "not-found")
        assert check(await client.get("/v1/search"), 405, "method-not-allowed")
        wrong = await client.options("/v1/documents/king")
    check(wrong, 405, "method-not-allowed")
    assert wrong.headers["Allow"] == "DELETE, GET, PUT"


class StubbornStore:
    """A store as a failing or hanging server would make it: foreign, so made up. Only `search` misbehaves."""

    def __init__(self, store: Store, error: Exception | None = None) -> None:
        self._store = store
        self._error = error
        self.entered = threading.Semaphore(0)
        self.gate = threading.Event()
        self._warm = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def search(self, *_: object, **__: object) -> list[Hit]:
        if not self._warm:
            self._warm = True
            return []
        self.entered.release()
        if self._error:
            raise self._error
        assert self.gate.wait(10)
        return []


class StubbornEngine:
    """Hands out one stubborn store."""

    def __init__(self, engine: Engine, error: Exception | None = None) -> None:
        self._engine = engine
        self.store = StubbornStore(engine.open("default"), error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def open(self, *_: object, **__: object) -> Any:
        return self.store


async def test_a_store_that_is_away_is_a_503_and_comes_back(serve: Serve, settings: Settings) -> None:
    engine = StubbornEngine(open_engine(settings), StoreUnavailable("no answer from http://qdrant:6333"))
    async with serve(lambda: Searchers(engine, settings)) as client:
        for _ in range(2):
            response = await client.post("/v1/search", json={"query": "file"})
            check(response, 503, "store-unavailable")
            assert response.headers["Retry-After"] == "1"


async def test_a_store_that_hangs_costs_the_caller_no_more_than_the_deadline(serve: Serve, settings: Settings) -> None:
    engine = StubbornEngine(open_engine(settings))
    async with serve(lambda: Searchers(engine, settings)) as client:
        response = await client.post("/v1/search", json={"query": "file", "timeout_ms": 20})
        check(response, 504, "deadline-exceeded")
        assert (await client.get("/livez")).status_code == 200
        engine.store.gate.set()


async def test_an_error_of_ours_is_a_500_without_its_trace(serve: Serve, settings: Settings) -> None:
    engine = StubbornEngine(open_engine(settings), RuntimeError("secret path /etc/passwd"))
    async with serve(lambda: Searchers(engine, settings)) as client:
        response = await client.post("/v1/search", json={"query": "file"}, headers={"X-Request-ID": "r-7"})
    check(response, 500, "internal-error")
    assert "secret" not in response.text
    assert response.headers["X-Request-ID"] == "r-7"


async def test_a_caller_who_hangs_up_is_let_go(serve: Serve, settings: Settings) -> None:
    engine = StubbornEngine(open_engine(settings))
    statuses: list[int] = []
    gone = asyncio.Event()
    body = [{"type": "http.request", "body": b'{"query": "file"}', "more_body": False}]

    async def receive() -> Any:
        if body:
            return body.pop()
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/search",
        "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
    }
    app = create_app(lambda: Searchers(engine, settings), settings)
    async with app.router.lifespan_context(app):
        request = asyncio.create_task(app(scope, receive, send))
        assert await asyncio.to_thread(engine.store.entered.acquire, timeout=10)
        gone.set()
        await request
        engine.store.gate.set()
    assert statuses == [499]


async def test_a_full_queue_is_a_429_with_a_time_to_come_back(serve: Serve) -> None:
    async with serve(max_queue=1) as client:
        await client.get("/readyz")
        answers = await asyncio.gather(*(client.post("/v1/search", json={"query": f"file {n}"}) for n in range(20)))
        refused = [answer for answer in answers if answer.status_code != 200]
        assert 0 < len(refused) < len(answers)
        for answer in refused:
            check(answer, 429, "queue-full")
            assert answer.headers["Retry-After"] == "1"
        assert (await client.post("/v1/search", json={"query": "file"})).status_code == 200
