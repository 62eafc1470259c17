"""`POST /v1/explain`: the words add up to the score, and a document's place is its true one, found or not."""

from pathlib import Path
from typing import Any

import pytest

from indexer.build import BuildOptions, build_index
from indexer.catalog import keep_artifact, open_engine
from indexer.documents import Document
from model.artifact import BUNDLED, Artifact
from model.encoder import Encoder
from service.explain import Question, explain, split_words
from service.settings import Settings
from service.words import lonely_words, shared_words
from tests.service.conftest import DOCUMENTS, Serve

pytestmark = pytest.mark.anyio

QUERIES = ["compress a file", "the speed of sound", "an island in the morning", "run five dogs", "a zipped file's key"]
MANY = 60


async def ask(client: Any, **body: Any) -> dict[str, Any]:
    response = await client.post("/v1/explain", json=body)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


async def test_words_and_terms_add_up_to_the_ot_part_of_every_pair_and_the_parts_to_the_score(serve: Serve) -> None:
    async with serve() as client:
        for query in QUERIES:
            found = (await client.post("/v1/search", json={"query": query, "limit": 6})).json()["results"]
            assert len(found) == len(DOCUMENTS)
            for rank, result in enumerate(found, start=1):
                answer = await ask(client, query=query, id=result["id"], rank=True, limit=3)
                for addends in ("words", "terms"):
                    total = sum(addend["contribution"] for addend in answer[addends])
                    assert total == pytest.approx(answer["parts"]["ot"], abs=1e-4)
                assert answer["score"] == pytest.approx(answer["parts"]["cls"] + answer["parts"]["ot"], abs=1e-9)
                assert answer["score"] == pytest.approx(result["score"], abs=1e-9)
                assert (answer["rank"], answer["in_results"]) == (rank, rank <= 3)


def test_the_words_of_real_texts_add_up_to_what_their_vectors_say() -> None:
    encoder = Encoder(Artifact.open(BUNDLED), threads=1)
    queries, texts = encoder.encode_queries(QUERIES), [document.text for document in DOCUMENTS]
    words = [split_words(encoder.vocabulary[i] for i in encoder.token_ids(text)) for text in QUERIES + texts]
    asked, held = words[: len(QUERIES)], words[len(QUERIES) :]
    for query, query_words in zip(queries, asked, strict=True):
        for document, document_words in zip(encoder.encode_documents(texts), held, strict=True):
            one, other = query.vector, document.vector
            terms = explain(Question.of(one, query_words, encoder.vocabulary), other, document_words).terms
            found = shared_words(terms)
            assert sum(word.contribution for word in found) == pytest.approx(one.score(other).ot, abs=1e-4)
            assert len({word.word for word in found}) == len(found)
            assert not any(word.word.startswith("##") for word in found)
            lonely = lonely_words(one, other, query_words, encoder.vocabulary)
            assert lonely == sorted(lonely, key=lambda word: (-word.weight, word.word))
            spelled = {word.text for word in query_words}
            assert all(word.word in spelled for word in lonely if word.in_text)


async def test_a_text_is_explained_as_the_document_it_would_be(serve: Serve) -> None:
    king = DOCUMENTS[3]
    async with serve() as client:
        stored = await ask(client, query="the king", id="king", rank=True)
        alike = await ask(client, query="the king", text=f"{king.title}\n{king.text}", rank=True)
        foreign = await ask(client, query="the king", text="red green blue", rank=True)
    assert (alike["score"], alike["rank"]) == (pytest.approx(stored["score"], abs=1e-4), stored["rank"])
    assert "id" not in alike
    assert "in_results" not in alike
    assert 1 <= foreign["rank"] <= len(DOCUMENTS) + 1


async def test_a_long_text_is_cut_as_the_index_cuts_and_explained_by_its_best_passage(serve: Serve) -> None:
    filler = "A ship at sea by night, an island in the morning. "
    text = filler * 20 + "The king and the queen had a horse. " + filler * 20
    async with serve() as client:
        answer = await ask(client, query="the king and the queen had a horse", text=text)
    passage = answer["passage"]
    assert passage["of"] > 3
    assert "queen" in text[passage["start"] : passage["end"]]


async def test_a_filter_bounds_results_and_rank_and_the_answer_says_whom_it_keeps_out(serve: Serve) -> None:
    german = {"must": [{"key": "metadata.lang", "match": {"value": "de"}}]}
    async with serve() as client:
        inside = await ask(client, query="the king", id="sea", filter=german, rank=True)
        outside = await ask(client, query="the king", id="time", filter=german, rank=True)
        unfiltered = await ask(client, query="the king", id="time")
    assert (inside["rank"], inside["in_results"], inside["matches_filter"]) == (1, True, True)
    assert (outside["in_results"], outside["matches_filter"]) == (False, False)
    assert outside["rank"] == 1 + (inside["score"] > outside["score"])
    assert "matches_filter" not in unfiltered
    assert "rank" not in unfiltered


@pytest.fixture(scope="module")
def long_documents(tiny_artifact: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of more documents than a page, each of several passages."""
    settings = Settings(data=tmp_path_factory.mktemp("long"))
    encoder = Encoder(keep_artifact(settings, tiny_artifact), threads=1)
    words = "king queen horse dog cat ship sea island night morning file list word letter sound air".split()
    documents = [
        Document(f"d{n}", text=". ".join(f"the {words[(n * 7 + i * i) % 16]} {words[(n + i) % 16]}" for i in range(45)))
        for n in range(MANY)
    ]
    engine = open_engine(settings)
    engine.publish(build_index(engine, encoder, documents, BuildOptions()))
    engine.close()
    return settings.data


async def test_the_rank_of_a_long_document_is_that_of_its_best_passage_among_documents(
    serve: Serve, long_documents: Path
) -> None:
    async with serve(data=long_documents) as client:
        found = (await client.post("/v1/search", json={"query": "king at sea", "limit": MANY})).json()["results"]
        scores = [result["score"] for result in found]
        assert len(scores) == MANY
        for result in (found[0], found[17], found[-1]):
            answer = await ask(client, query="king at sea", id=result["id"], rank=True)
            assert answer["rank"] == 1 + sum(score > result["score"] for score in scores)
            assert answer["passage"] == result["passage"]
            number = answer["passage"]["number"]
            chosen = {"must": {"key": "chunk", "match": {"except": [number - 1]}}}
            other = await ask(client, query="king at sea", id=result["id"], filter=chosen)
            assert other["passage"]["number"] != number
            assert other["score"] <= answer["score"]


@pytest.mark.parametrize(
    ("body", "status", "name", "said"),
    [
        ({"query": "x"}, 422, "invalid-request", "either id or text"),
        ({"query": "x", "id": "a", "text": "b"}, 422, "invalid-request", "either id or text"),
        ({"query": "x", "id": "nobody"}, 404, "document-not-found", "nobody"),
        ({"query": "x", "text": "y" * 16_385}, 422, "invalid-request", "at most 16384"),
        ({"query": "x", "text": "\u200b"}, 422, "invalid-request", "text"),
        ({"query": " ", "id": "king"}, 422, "invalid-request", "white space"),
        ({"query": "x", "id": "king", "limit": 10**6}, 422, "invalid-request", "limit"),
        ({"query": "x", "id": "king", "filter": {"must": "y"}}, 422, "invalid-filter", "filter.must"),
        ({"query": "x", "id": "king", "fingerprint": "0"}, 409, "wrong-artifact", "'0'"),
    ],
)
async def test_what_cannot_be_explained_is_refused_by_name(
    serve: Serve, body: dict[str, Any], status: int, name: str, said: str
) -> None:
    async with serve() as client:
        refused = await client.post("/v1/explain", json=body)
        surrogate = await client.post(
            "/v1/explain",
            content=rb'{"query": "x", "id": "\ud800"}',
            headers={"content-type": "application/json"},
        )
    assert (refused.status_code, refused.json()["type"]) == (status, f"urn:dupmae:{name}")
    assert said in refused.json()["detail"]
    assert surrogate.status_code == 422


async def test_without_time_for_the_rank_the_explanation_is_answered_with_what_is_known(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.explaining.FOR_THE_RANK", 0.0)
    async with serve() as client:
        answer = await ask(client, query="the king", id="sea", rank=True)
    assert (answer["rank_at_least"], "rank" in answer) == (1, False)
    assert answer["words"]
