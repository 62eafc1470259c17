"""A long document is found by any of its sentences, and the answer says where they stand."""

import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from indexer import grouping
from indexer.build import BuildOptions, build_index
from indexer.catalog import keep_artifact, open_engine
from indexer.documents import Document
from indexer.edge import EdgeEngine
from indexer.points import place, point_id
from model.artifact import BUNDLED, Artifact
from model.encoder import Encoder
from service.cli import app as command
from service.searcher import Searcher, best_passage
from service.settings import Settings
from tests.service.conftest import Serve

pytestmark = pytest.mark.anyio

LAST = "The lighthouse keeper paints his boat blue every April."
LONG = Document(
    "harbour",
    "The harbour",
    " ".join(f"In year {year} the town council counted {year // 3} fishing nets." for year in range(1800, 1870))
    + f" {LAST}",
)
SHORT = [
    Document("zip", "Compression", "How to compress a file."),
    Document("bread", "Bread", "Knead the dough, let it rest, and bake it."),
    Document("moon", "The moon", "The moon moves the tides."),
]
ASKED = "When is the lighthouse keeper's boat painted?"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder whose index has one long document; encoded by the bundled model, since what is found matters."""
    settings = Settings(data=tmp_path_factory.mktemp("data"))
    artifact = keep_artifact(settings, Artifact.open(BUNDLED))
    with closing(open_engine(settings)) as engine:
        engine.publish(build_index(engine, Encoder(artifact, threads=1), [*SHORT, LONG], BuildOptions()))
    return settings.data


async def test_a_long_document_is_found_by_its_last_sentence_which_is_shown_with_its_place(serve: Serve) -> None:
    async with serve() as client:
        answer = (await client.post("/v1/search", json={"query": ASKED})).json()
    first = answer["results"][0]
    at = first["passage"]
    assert first["id"] == "harbour"
    assert at["number"] == at["of"] > 3
    assert first["text"] == LONG.text[at["start"] : at["end"]]
    assert first["text"].endswith(LAST)
    assert {"lighthouse", "keeper"} <= {run["text"] for run in first["highlights"] if run["match"]}
    assert answer["meta"]["complete"]
    assert answer["meta"]["index"]["documents"] == 4


async def test_a_document_stands_once_unless_passages_are_asked_for(serve: Serve) -> None:
    async with serve() as client:
        documents, passages = [
            (await client.post("/v1/search", json={"query": ASKED, "group_by": by})).json()["results"]
            for by in ("document", "passage")
        ]
        refused = await client.post("/v1/search", json={"query": ASKED, "group_by": "page"})
    assert sorted(result["id"] for result in documents) == ["bread", "harbour", "moon", "zip"]
    numbers = [result["passage"]["number"] for result in passages if result["id"] == "harbour"]
    assert sorted(numbers) == list(range(1, passages[0]["passage"]["of"] + 1))
    assert refused.status_code == 422


async def test_an_answer_that_the_bound_cut_short_says_so(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grouping, "MOST_PASSAGES", 2)
    async with serve() as client:
        body = {"query": "the town council counted fishing nets in year 1850", "limit": 2}
        answer = (await client.post("/v1/search", json=body)).json()
    assert [result["id"] for result in answer["results"]] == ["harbour"]
    assert not answer["meta"]["complete"]


async def test_a_short_document_is_one_passage(serve: Serve) -> None:
    async with serve() as client:
        answer = (await client.post("/v1/search", json={"query": "compress a file"})).json()
    assert answer["results"][0]["text"] == SHORT[0].text
    assert answer["results"][0]["passage"] == {"number": 1, "of": 1, "start": 0, "end": len(SHORT[0].text)}


def test_the_passage_of_a_document_is_the_one_that_scores_best(data: Path) -> None:
    with closing(EdgeEngine(data).open("default")) as store:
        searcher = Searcher(Encoder(Artifact.open(BUNDLED), threads=1), store)
        query = searcher.encode(ASKED).vector
        of_harbour = [point for point in store.scroll() if point.payload["doc_id"] == "harbour"]
        best = best_passage(query, searcher.passages(searcher.document("harbour"), "harbour"))
        assert query.score(best.vector) == max(
            (query.score(point.vector) for point in of_harbour), key=lambda parts: parts.score
        )
        assert place(best).number == len(of_harbour) - 1
        question = searcher.question(searcher.words(ASKED), query)
        words = {term.word for term in searcher.explain(question, best).terms if term.in_document}
    assert "lighthouse" in words


def test_the_commands_show_the_passage(data: Path, tmp_path: Path) -> None:
    def dupmae(*arguments: str) -> str:
        result = CliRunner(env={"DUPMAE_DATA": str(data)}).invoke(command, arguments, catch_exceptions=False)
        return result.stdout

    explained = json.loads(dupmae("explain", ASKED, "harbour", "--json"))
    number, of = explained["passage"]["number"], explained["passage"]["of"]
    assert number == of > 3
    assert f"passage {of} of {of}" in dupmae("explain", ASKED, "harbour")
    found = dupmae("search", ASKED)
    assert f"The harbour  passage {of} of {of}" in found
    assert found.count("passage") == 1


async def test_a_build_that_knew_no_passages_still_answers(
    serve: Serve, tiny_artifact: Artifact, tiny_encoder: Encoder, tmp_path: Path
) -> None:
    keep_artifact(Settings(data=tmp_path), tiny_artifact)
    engine = EdgeEngine(tmp_path)
    build = build_index(engine, tiny_encoder, SHORT, BuildOptions())
    with closing(engine.open("default", build.id, write=True)) as store:
        points = [
            replace(each, payload={k: v for k, v in each.payload.items() if k not in {"start", "end", "chunks"}})
            for each in store.scroll()
        ]
        store.upsert(points)
        store.flush()
        assert place(store.get([point_id("zip")])[0]) == (0, 1, 0, len(SHORT[0].text))
    facts = json.loads((build_file := next(tmp_path.glob("indexes/*/builds/*/build.json"))).read_text())
    del facts["passages"], facts["chunking"]
    build_file.write_text(json.dumps(facts))
    engine.publish(build)
    async with serve(data=tmp_path) as client:
        answer = (await client.post("/v1/search", json={"query": "compress a file"})).json()
    assert len(answer["results"]) == 3
    for result in answer["results"]:
        assert result["passage"] == {"number": 1, "of": 1, "start": 0, "end": len(result["text"])}
