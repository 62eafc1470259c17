"""`POST /v1/search:batch`: every search is answered or refused by itself, and all are encoded together."""

import logging
import re
import threading
from collections.abc import Sequence
from typing import Any

import httpx
import pytest

from indexer.catalog import open_engine
from indexer.grouping import Grouped
from model.encoder import Encoder, Encoding, Tokenized
from service.searcher import Searcher, Searchers
from service.settings import Settings
from tests.service.conftest import Serve
from tests.service.test_problems import check

pytestmark = pytest.mark.anyio


async def ask(client: httpx.AsyncClient, searches: Sequence[object], **body: object) -> httpx.Response:
    return await client.post("/v1/search:batch", json={"searches": searches, **body})


def without_times(answer: dict[str, Any]) -> dict[str, Any]:
    return {**answer, "meta": {**answer["meta"], "took_ms": {}}}


async def test_each_answer_is_that_of_a_search_alone_and_all_were_encoded_together(serve: Serve) -> None:
    searches = [
        {"query": "compress a file", "limit": 2},
        {"query": "the king", "mode": "ot", "with": ["explain"]},
        {"query": "letter", "index": "letters"},
        {"query": "the sea", "facets": ["metadata.lang"]},
    ]
    async with serve() as client:
        alone = [(await client.post("/v1/search", json=each)).json() for each in searches]
    async with serve(probe_s=0) as client:  # nobody else is in the batch
        assert (await client.get("/readyz")).status_code == 200  # both indexes are open when it comes
        await client.post("/v1/search", json={"query": "opens", "index": "letters"})
        response = await ask(client, searches)
        metrics = (await client.get("/metrics")).text
    answers = response.json()["answers"]
    assert [each["status"] for each in answers] == [200] * 4
    assert [without_times(each["answer"]) for each in answers] == [without_times(each) for each in alone]
    assert re.findall("dupmae_batch_size_sum (.*)", metrics) == ["17.0"]  # 1 and four times 4
    assert 'dupmae_search_requests_total{mode="ot",status="200"} 1.0' in metrics


async def test_a_bad_search_is_refused_in_its_place_and_fails_no_other(serve: Serve) -> None:
    searches = [
        {"query": "the king"},
        {"query": "x", "colour": "red"},
        7,
        {"query": " "},
        {"query": "x", "limit": 10**9},
        {"query": "x", "index": "nope"},
        {"query": "x", "filter": {"must": [{"key": "colour", "match": {"value": "red"}}]}},
        {"query": "x", "facets": ["metadata.colour"]},
        {"query": "x", "cursor": "forged"},
        {"query": "x", "fingerprint": "0"},
        {"query": "the sea"},
    ]
    expected = [
        "invalid-request",
        "invalid-request",
        "invalid-request",
        "invalid-request",
        "index-not-found",
        "invalid-filter",
        "invalid-facet",
        "invalid-cursor",
        "wrong-artifact",
    ]
    async with serve() as client:
        response = await ask(client, searches)
    first, *refused, last = response.json()["answers"]
    assert (first["status"], last["status"]) == (200, 200)
    assert [each["problem"]["type"].removeprefix("urn:dupmae:") for each in refused] == expected
    assert all(each["status"] == each["problem"]["status"] and "answer" not in each for each in refused)
    assert {each["problem"]["request_id"] for each in refused} == {response.headers["X-Request-ID"]}
    assert refused[0]["problem"]["errors"] == [{"field": "colour", "message": "Extra inputs are not permitted"}]


@pytest.mark.parametrize("body", [{}, {"searches": []}, {"searches": {}}, {"searches": [{"query": "x"}], "limit": 3}])
async def test_a_batch_that_is_none_is_refused_as_a_whole(serve: Serve, body: dict[str, object]) -> None:
    async with serve() as client:
        check(await client.post("/v1/search:batch", json=body), 422, "invalid-request")


async def test_the_bound_on_searches_is_named(serve: Serve) -> None:
    async with serve(max_searches=2) as client:
        assert (await ask(client, [{"query": "x"}] * 2)).status_code == 200
        problem = check(await ask(client, [{"query": "x"}] * 3), 422, "invalid-request")
    assert "DUPMAE_MAX_SEARCHES=2" in problem["detail"]


async def test_one_deadline_ends_what_is_not_answered_and_keeps_what_is(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck = threading.Event()
    retrieve = Searcher.retrieve

    def slow(searcher: Searcher, *args: Any, **kwargs: Any) -> Grouped:
        if kwargs["limit"] == 3:
            stuck.wait(60)
        return retrieve(searcher, *args, **kwargs)

    monkeypatch.setattr(Searcher, "retrieve", slow)
    async with serve() as client:
        try:
            late = {"query": "the sea", "limit": 3}
            response = await ask(client, [{"query": "the king"}, {**late, "timeout_ms": 50}])
            all_late = await ask(client, [late, late], timeout_ms=50)
        finally:
            stuck.set()
    assert [each["status"] for each in response.json()["answers"]] == [200, 504]
    for each in all_late.json()["answers"]:
        assert (each["status"], each["problem"]["type"]) == (504, "urn:dupmae:deadline-exceeded")


async def test_a_defect_is_a_500_in_its_place_with_its_trace_in_the_log(
    serve: Serve, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(Searchers):
        def open(self, index: str, *, write: bool = False) -> Searcher:
            searcher = super().open(index, write=write)
            if index == "letters":
                searcher.encoder = _Breaking(searcher.encoder)  # type: ignore[assignment]
            return searcher

    with caplog.at_level(logging.ERROR, "dupmae.problems"):
        async with serve(lambda: Broken(open_engine(settings), settings)) as client:
            response = await ask(client, [{"query": "the king"}, {"query": "a", "index": "letters"}])
    answered, failed = response.json()["answers"]
    assert (answered["status"], failed["status"]) == (200, 500)
    assert "the model broke" not in response.text
    assert "the model broke" in caplog.text


class _Breaking:
    """An encoder that breaks on every batch."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder

    def __getattr__(self, name: str) -> Any:
        return getattr(self._encoder, name)

    def encode_tokenized(self, texts: Sequence[Tokenized]) -> Sequence[Encoding]:
        raise RuntimeError(f"the model broke on {len(texts)} texts")


async def test_the_schema_of_the_searches_is_that_of_a_search(serve: Serve) -> None:
    async with serve() as client:
        schemas = (await client.get("/openapi.json")).json()["components"]["schemas"]
    assert schemas["BatchRequest"]["properties"]["searches"]["items"] == {"$ref": "#/components/schemas/SearchRequest"}
