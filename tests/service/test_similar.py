"""`POST /v1/documents/{id}:similar`: a search whose query is a stored document."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from indexer.build import BuildOptions, build_index
from indexer.catalog import keep_artifact
from indexer.documents import Document
from indexer.edge import EdgeEngine
from model.artifact import Artifact
from model.encoder import Encoder
from model.vector import FusedVector
from service import likeness
from service.likeness import mean_vector
from service.searcher import Searcher
from service.settings import Settings
from tests.service.conftest import DOCUMENTS, Serve
from tests.service.test_problems import check

pytestmark = pytest.mark.anyio

SENTENCES = ["the king and the queen of the island", "a ship at sea by night", "compress a file and read it"]
LONG = Document("long/one:a", "", ". ".join(f"{sentence} {word}" for word in "abcdefgh" for sentence in SENTENCES))
ODD = "shelf/7:similar"
STORED = [*DOCUMENTS, LONG, Document(ODD, "Kings", "The king and the queen had two dogs.", metadata={"lang": "en"})]


@pytest.fixture(scope="module")
def data(tiny_artifact: Artifact, tiny_encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = Settings(data=tmp_path_factory.mktemp("data"))
    keep_artifact(settings, tiny_artifact)
    engine = EdgeEngine(settings.data)
    engine.publish(build_index(engine, tiny_encoder, STORED, BuildOptions(fields={"metadata.lang": "keyword"})))
    return settings.data


@pytest.fixture
def searcher(data: Path, tiny_encoder: Encoder) -> Iterator[Searcher]:
    with closing(Searcher(tiny_encoder, EdgeEngine(data).open("default"))) as searcher:
        yield searcher


async def similar(client: httpx.AsyncClient, id: str, **body: object) -> httpx.Response:
    return await client.post(f"/v1/documents/{id}:similar", json=body)


async def test_the_score_is_that_of_the_stored_vectors_and_the_document_itself_is_left_out(
    serve: Serve, searcher: Searcher, tiny_encoder: Encoder
) -> None:
    vectors = {each.id: tiny_encoder.encode_documents([each.passage])[0].vector for each in DOCUMENTS}
    asked = searcher.build.weighed(mean_vector([vectors["king"]], tiny_encoder.artifact.manifest.k_query))
    async with serve() as client:
        answer = (await similar(client, "king", limit=100, **{"with": ["parts", "explain"]})).json()
    scores = {each["id"]: each["score"] for each in answer["results"]}
    assert scores.keys() == {each.id for each in STORED} - {"king"}
    assert list(scores.values()) == sorted(scores.values(), reverse=True)
    for id in ("sea", "sort", "time"):
        assert scores[id] == pytest.approx(asked.score(vectors[id]).score, abs=1e-3)
    for result in answer["results"]:
        assert sum(term["contribution"] for term in result["explain"]) == pytest.approx(result["parts"]["ot"], abs=1e-3)
        held = [term["entry"].removeprefix("##") for term in result["explain"] if term["in_query"]]
        assert all(entry in DOCUMENTS[3].passage.lower() for entry in held)
    assert set(answer["meta"]["took_ms"]) == {"look_up", "retrieve", "render"}
    assert answer["meta"]["query"]["truncated"] is False


async def test_modes_filters_groups_facets_and_cursors_are_those_of_a_search(serve: Serve) -> None:
    english = {"must": [{"key": "metadata.lang", "match": {"value": "en"}}]}
    async with serve() as client:
        for mode in ("cls", "ot", "rrf"):
            results = (await similar(client, "king", mode=mode)).json()["results"]
            assert results
            assert "king" not in {each["id"] for each in results}
        filtered = (await similar(client, "king", filter=english, facets=["metadata.lang"])).json()
        assert {each["id"] for each in filtered["results"]} == {"sound", "time", ODD}
        assert filtered["facets"] == {"metadata.lang": [{"value": "en", "count": 3}]}
        passages = (await similar(client, "king", group_by="passage", limit=100)).json()["results"]
        assert len([each for each in passages if each["id"] == LONG.id]) > 1
        whole = (await similar(client, "king", limit=7)).json()["results"]
        first = (await similar(client, "king", limit=3)).json()
        rest = (await similar(client, "king", limit=4, cursor=first["next_cursor"])).json()
        assert first["results"] + rest["results"] == whole
        other = await similar(client, "sea", limit=4, cursor=first["next_cursor"])
        searched = await client.post("/v1/search", json={"query": "king", "cursor": first["next_cursor"]})
    assert "the same document" in check(other, 422, "invalid-cursor")["detail"]
    check(searched, 422, "invalid-cursor")


async def test_ids_with_slashes_and_colons_are_found_also_one_that_ends_like_the_route(serve: Serve) -> None:
    async with serve() as client:
        assert LONG.id not in {each["id"] for each in (await similar(client, LONG.id)).json()["results"]}
        results = (await similar(client, ODD, limit=100)).json()["results"]
        assert {each["id"] for each in results} == {each.id for each in STORED} - {ODD}
        assert (await client.get(f"/v1/documents/{ODD}")).json()["id"] == ODD


async def test_an_unknown_document_and_a_bad_option_are_refused(serve: Serve) -> None:
    async with serve() as client:
        assert "'nobody'" in check(await similar(client, "nobody"), 404, "document-not-found")["detail"]
        check(await similar(client, "king", index="nope"), 404, "index-not-found")
        check(await similar(client, "king", query="x"), 422, "invalid-request")
        check(await similar(client, "king", limit=10**6), 422, "invalid-request")
        check(await similar(client, "king", fingerprint="0"), 409, "wrong-artifact")
        check(await client.post("/v1/documents/king:similar", content="{}"), 415, "unsupported-media-type")
        metrics = (await client.get("/metrics")).text
    assert 'dupmae_search_requests_total{mode="fused",status="404"} 2.0' in metrics


def test_a_long_document_is_the_mean_of_its_passages(searcher: Searcher) -> None:
    stored = [point for point in searcher.store.scroll() if point.payload["doc_id"] == LONG.id]
    text, encoding = likeness.likeness(searcher, LONG.id)
    k = searcher.encoder.artifact.manifest.k_query
    assert len(stored) > 2
    assert_same(encoding.vector, searcher.build.weighed(mean_vector([point.vector for point in stored], k)))
    assert all(str(point.payload["text"]) in text for point in stored)
    assert len(encoding.vector.ot_indices) == k
    other = stored[0].vector
    uncut = mean_vector([point.vector for point in stored], 10_000)
    scores = [point.vector.score(other).score for point in stored]
    assert uncut.score(other).score == pytest.approx(sum(scores) / len(scores), rel=1e-5)


def test_of_a_very_long_document_passages_at_even_distances_are_read(
    searcher: Searcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(likeness, "MOST_PASSAGES", 2)
    text, encoding = likeness.likeness(searcher, LONG.id)
    assert encoding.truncated
    assert text.startswith(LONG.text[:20])
    assert 1 <= text.count("\n") <= 2


def assert_same(one: FusedVector, two: FusedVector) -> None:
    assert one.cls == pytest.approx(two.cls, abs=1e-5)
    assert one.ot_indices.tolist() == two.ot_indices.tolist()
    assert one.ot_values == pytest.approx(two.ot_values, abs=1e-5)
