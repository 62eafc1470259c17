"""`POST /v1/search` over a real encoder and the embedded engine."""

import json
import logging

import pytest

from indexer.documents import Document
from model.encoder import Encoder
from model.rarity import Rarity
from tests.service.conftest import DOCUMENTS, Serve

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("mode", ["fused", "cls", "ot", "rrf"])
async def test_the_parts_of_every_result_add_up_to_its_score(serve: Serve, mode: str) -> None:
    async with serve() as client:
        answer = (await client.post("/v1/search", json={"query": "compress a file", "mode": mode})).json()
    assert answer["meta"]["mode"] == mode
    assert answer["results"]
    for result in answer["results"]:
        assert result["parts"]["cls"] + result["parts"]["ot"] == pytest.approx(result["score"], abs=1e-4)


async def test_results_are_in_the_order_that_brute_force_gives(serve: Serve, tiny_encoder: Encoder) -> None:
    manifest = tiny_encoder.artifact.manifest
    encodings = tiny_encoder.encode_documents([document.passage for document in DOCUMENTS])
    vectors = [encoding.vector for encoding in encodings]
    assert manifest.rarity_weight
    rarity = Rarity.counted(vectors, manifest.vocabulary_size, manifest.rarity_weight)
    query = rarity.weigh(tiny_encoder.encode_queries(["the king and a ship"])[0].vector)
    scored = zip(DOCUMENTS, (query.score(each).score for each in vectors), strict=True)
    expected = sorted(scored, key=lambda pair: -pair[1])
    async with serve() as client:
        answer = (await client.post("/v1/search", json={"query": "the king and a ship"})).json()
    assert [result["id"] for result in answer["results"]] == [document.id for document, _ in expected]
    assert [result["score"] for result in answer["results"]] == pytest.approx(
        [score for _, score in expected], abs=1e-4
    )


async def test_a_result_carries_the_document_and_the_meta_what_answered(serve: Serve, tiny_encoder: Encoder) -> None:
    async with serve() as client:
        answer = (await client.post("/v1/search", json={"query": "speed of sound", "limit": 6})).json()
    sound = next(result for result in answer["results"] if result["id"] == "sound")
    document = next(each for each in DOCUMENTS if each.id == "sound")
    assert Document(**{name: sound[name] for name in ("id", "title", "text", "url", "metadata")}) == document
    assert "".join(run["text"] for run in sound["highlights"]) == document.text
    assert set(answer["meta"]["took_ms"]) == {"queue", "encode", "retrieve", "render"}
    assert answer["meta"]["model"] == {"name": "tiny", "fingerprint": tiny_encoder.fingerprint}
    assert answer["meta"]["index"]["name"] == "default"
    assert answer["meta"]["index"]["documents"] == len(DOCUMENTS)
    assert answer["meta"]["query"] == {"tokens": 3, "truncated": False}


async def test_an_explanation_adds_up_to_the_ot_part(serve: Serve) -> None:
    async with serve() as client:
        body = {"query": "compress a file", "with": ["parts", "explain"]}
        answer = (await client.post("/v1/search", json=body)).json()
    for result in answer["results"]:
        total = sum(term["contribution"] for term in result["explain"])
        assert total == pytest.approx(result["parts"]["ot"], abs=1e-4)


async def test_what_was_not_asked_for_is_absent(serve: Serve) -> None:
    async with serve() as client:
        answer = (await client.post("/v1/search", json={"query": "compress a file", "with": []})).json()
    assert not {"parts", "explain"} & answer["results"][0].keys()


async def test_a_cut_query_says_so(serve: Serve) -> None:
    async with serve() as client:
        answer = (await client.post("/v1/search", json={"query": "the king " * 100})).json()
    assert answer["meta"]["query"] == {"tokens": 200, "truncated": True}


async def test_another_index_answers_when_it_is_named(serve: Serve) -> None:
    async with serve() as client:
        answer = (await client.post("/v1/search", json={"query": "letter", "index": "letters"})).json()
    assert [result["id"] for result in answer["results"]] == ["a"]


async def test_a_filter_bounds_the_results(serve: Serve) -> None:
    lang = {"must": [{"key": "metadata.lang", "match": {"value": "en"}}]}
    async with serve() as client:
        answer = (await client.post("/v1/search", json={"query": "compress a file", "filter": lang})).json()
    assert {result["id"] for result in answer["results"]} == {"sound", "time"}


async def test_the_artifact_can_be_pinned(serve: Serve, tiny_encoder: Encoder) -> None:
    async with serve() as client:
        pinned = await client.post("/v1/search", json={"query": "file", "fingerprint": tiny_encoder.fingerprint})
        other = await client.post("/v1/search", json={"query": "file", "fingerprint": "0" * 64})
    assert pinned.status_code == 200
    assert other.status_code == 409
    assert tiny_encoder.fingerprint in other.json()["detail"]


async def test_a_request_is_one_json_line_with_its_id_and_without_its_query(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "dupmae.requests"):
        async with serve() as client:
            response = await client.post("/v1/search", json={"query": "sound"}, headers={"X-Request-ID": "r-1"})
    assert response.headers["X-Request-ID"] == "r-1"
    (line,) = (json.loads(record.message) for record in caplog.records if record.name == "dupmae.requests")
    assert (line["request_id"], line["status"], line["mode"], line["results"]) == ("r-1", 200, "fused", 6)
    assert "query" not in line


async def test_the_query_is_logged_when_the_settings_say_so(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "dupmae.requests"):
        async with serve(log_queries=True) as client:
            await client.post("/v1/search", json={"query": "sound"})
    assert json.loads(caplog.records[-1].message)["query"] == "sound"


async def test_a_request_id_that_could_forge_a_log_line_is_replaced(serve: Serve) -> None:
    async with serve() as client:
        response = await client.get("/livez", headers={"X-Request-ID": 'a", "status": "0'})
    assert len(response.headers["X-Request-ID"]) == 32
