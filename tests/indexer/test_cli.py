"""`dupmae index` and `dupmae evaluate`: what they print, write and raise. Exit codes belong to `service.cli`."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from indexer.build import BuildError
from indexer.catalog import kept_artifact
from indexer.cli import app, evaluate
from indexer.edge import EdgeEngine
from indexer.release import PublicationBlocked
from indexer.settings import IndexSettings
from indexer.store import Filter, IndexNotFound, StoreError
from model.artifact import Artifact, ArtifactError
from model.cli import MissingExtra
from model.encoder import Encoder
from model.lines import SourceError

Dupmae = Callable[..., Result]

BIRDS = [
    {"_id": "gull", "title": "white birds", "text": "people of the sea work by day", "lang": "en"},
    {"_id": "owl", "text": "birds of the night", "lang": "de"},
]


@pytest.fixture
def settings(tmp_path: Path, tiny_artifact: Artifact) -> IndexSettings:
    return IndexSettings(data=tmp_path / "data", artifact=tiny_artifact.path, threads=1)


@pytest.fixture
def dupmae(settings: IndexSettings) -> Dupmae:
    """Runs `dupmae index ARGUMENTS`; what a command raises is raised here."""

    def run(*arguments: str, stdin: str | None = None) -> Result:
        return CliRunner().invoke(app, arguments, obj=settings, input=stdin, catch_exceptions=False)

    return run


@pytest.fixture
def birds(tmp_path: Path) -> str:
    path = tmp_path / "birds.jsonl"
    path.write_text("".join(json.dumps(bird) + "\n" for bird in BIRDS))
    return str(path)


def test_a_build_is_published_and_can_be_searched_with_the_model_that_was_kept(
    dupmae: Dupmae, birds: str, settings: IndexSettings
) -> None:
    result = dupmae("build", birds, "--field", "metadata.lang=keyword")
    assert "2 documents, published" in result.stdout
    store = EdgeEngine(settings.data).open("default")
    (query,) = Encoder(kept_artifact(settings, store.build)).encode_queries(["night birds"])
    german: Filter = {"must": [{"key": "metadata.lang", "match": {"value": "de"}}]}
    assert [hit.point.payload["doc_id"] for hit in store.search(query.vector, filter=german)] == ["owl"]
    store.close()


def test_json_has_every_fact_of_the_build(dupmae: Dupmae, birds: str, tiny_artifact: Artifact) -> None:
    facts = json.loads(dupmae("build", birds, "--index", "birds", "--json").stdout)
    assert facts["index"] == "birds"
    assert facts["fingerprint"] == tiny_artifact.fingerprint
    assert (facts["documents"], facts["state"], facts["published"]) == (2, "ready", True)


def test_documents_come_from_standard_input(dupmae: Dupmae) -> None:
    assert "1 documents" in dupmae("build", "-", stdin=json.dumps(BIRDS[0])).stdout


def test_a_build_can_wait_to_be_published(dupmae: Dupmae, birds: str) -> None:
    facts = json.loads(dupmae("build", birds, "--no-publish", "--json").stdout)
    assert not facts["published"]
    assert json.loads(dupmae("publish", facts["id"], "--json").stdout)["published"]


def test_rollback_publishes_the_build_before_and_then_finds_no_older_one(dupmae: Dupmae, birds: str) -> None:
    one, two = (json.loads(dupmae("build", birds, "--json").stdout)["id"] for _ in range(2))
    assert json.loads(dupmae("rollback", "--json").stdout)["id"] == one
    listed = json.loads(dupmae("list", "--json").stdout)
    assert [(build["id"], build["published"]) for build in listed] == [(two, False), (one, True)]
    with pytest.raises(StoreError, match=f"no ready build older than the published {one}"):
        dupmae("rollback")


def test_verify_shows_every_check_of_the_newest_build(dupmae: Dupmae, birds: str) -> None:
    dupmae("build", birds)
    newest = json.loads(dupmae("build", birds, "--json").stdout)["id"]
    printed = dupmae("verify").stdout
    assert newest in printed
    assert "re-encoding" in printed
    assert "FAILED" not in printed


def test_verify_names_the_check_that_failed(dupmae: Dupmae, birds: str, settings: IndexSettings) -> None:
    older = json.loads(dupmae("build", birds, "--json").stdout)["id"]
    dupmae("build", birds)
    engine = EdgeEngine(settings.data)
    build = next(build for build in engine.builds("default") if build.id == older)
    engine.save(build.model_copy(update={"documents": 3}))
    with pytest.raises(BuildError, match=f"build {older} of index default failed at: points"):
        dupmae("verify", older)
    with pytest.raises(IndexNotFound, match="Index 'birds' has no build"):
        dupmae("verify", "--index", "birds")


def test_a_build_that_lost_documents_waits_until_somebody_says_so(dupmae: Dupmae, birds: str) -> None:
    live = json.loads(dupmae("build", birds, "--json").stdout)["id"]
    with pytest.raises(PublicationBlocked, match="it holds 1 documents where the published build has 2, 50% fewer"):
        dupmae("build", "-", stdin=json.dumps(BIRDS[0]))
    waiting, published = json.loads(dupmae("list", "--json").stdout)
    assert (waiting["state"], published["id"], published["published"]) == ("ready", live, True)
    assert json.loads(dupmae("publish", waiting["id"], "--no-gate", "--json").stdout)["published"]


def test_a_release_says_what_was_measured_and_what_went(dupmae: Dupmae, birds: str) -> None:
    first = json.loads(dupmae("build", birds, "--json").stdout)["id"]
    printed = dupmae("build", birds, "--keep", "1").stdout
    assert "change +0.000 [+0.000, +0.000] on 2 queries (known items)" in printed
    assert f"(--keep): {first}" in printed
    assert "+0.000 [+0.000, +0.000]" in dupmae("list").stdout


def test_judgements_are_read_before_anything_else(dupmae: Dupmae, birds: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="holds no queries"):
        dupmae("build", birds, "--judge", str(tmp_path))
    assert json.loads(dupmae("list", "--json").stdout) == []
    assert dupmae("build", birds, "--judge", str(tmp_path), "--no-gate").exit_code == 2


def test_a_list_for_people_marks_the_published_build(dupmae: Dupmae, birds: str) -> None:
    dupmae("build", birds)
    dupmae("build", birds, "--no-publish")
    words = dupmae("list").stdout.split()
    assert words.index("ready") < words.index("published")


def test_a_build_that_is_not_published_can_be_deleted(dupmae: Dupmae, birds: str) -> None:
    live = json.loads(dupmae("build", birds, "--json").stdout)["id"]
    spare = json.loads(dupmae("build", birds, "--no-publish", "--json").stdout)["id"]
    assert "deleted" in dupmae("delete", spare).stdout
    with pytest.raises(StoreError, match="is published"):
        dupmae("delete", live)
    assert [build["id"] for build in json.loads(dupmae("list", "--json").stdout)] == [live]


def test_an_unknown_build_is_named_with_those_that_exist(dupmae: Dupmae, birds: str) -> None:
    known = json.loads(dupmae("build", birds, "--json").stdout)["id"]
    with pytest.raises(IndexNotFound, match=f"no build 'nope'; builds that exist: {known}"):
        dupmae("publish", "nope")


def test_bad_records_land_in_the_data_folder_unless_told_otherwise(
    dupmae: Dupmae, settings: IndexSettings, tmp_path: Path
) -> None:
    lines = f"{json.dumps(BIRDS[0])}\noops\n"
    assert "1 bad records" in dupmae("build", "-", stdin=lines).stdout
    assert "oops" in (settings.data / "dead-letters/default.jsonl").read_text()
    dupmae("build", "-", "--dead-letters", str(tmp_path / "dead.jsonl"), stdin=lines)
    assert "oops" in (tmp_path / "dead.jsonl").read_text()


def test_too_many_bad_records_leave_the_published_build_alone(dupmae: Dupmae, birds: str) -> None:
    live = json.loads(dupmae("build", birds, "--json").stdout)["id"]
    with pytest.raises(SourceError, match="more than 0 bad records"):
        dupmae("build", "-", "--max-bad", "0", stdin="oops")
    states = [
        (build["id"], build["state"]) for build in json.loads(dupmae("list", "--json").stdout) if build["published"]
    ]
    assert states == [(live, "ready")]


@pytest.mark.parametrize("pair", ["metadata.lang", "=keyword", "metadata.lang=word"])
def test_a_field_without_a_known_type_is_a_usage_error(dupmae: Dupmae, birds: str, pair: str) -> None:
    result = dupmae("build", birds, "--field", pair)
    assert result.exit_code == 2
    assert "NAME=TYPE" in result.stderr


def test_a_folder_that_is_no_artifact_is_refused_before_anything_is_read(dupmae: Dupmae, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="is not an artifact"):
        dupmae("build", str(tmp_path / "nowhere.jsonl"), "--artifact", str(tmp_path))


def test_a_damaged_kept_model_is_replaced_by_the_next_build(
    dupmae: Dupmae, birds: str, settings: IndexSettings, tiny_artifact: Artifact
) -> None:
    dupmae("build", birds)
    graph = settings.data / "models" / tiny_artifact.fingerprint / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:-1])
    dupmae("build", birds)
    assert Artifact.open(graph.parent).fingerprint == tiny_artifact.fingerprint
    assert [path.name for path in (settings.data / "models").iterdir()] == [tiny_artifact.fingerprint]


@pytest.mark.parametrize("command", ["build", "list", "publish", "verify", "rollback", "delete"])
def test_the_help_of_every_command_has_an_example(dupmae: Dupmae, command: str) -> None:
    assert f"Example: dupmae index {command}" in " ".join(dupmae(command, "--help").stdout.split())


@pytest.fixture
def collection(tmp_path: Path, birds: str) -> str:
    folder = tmp_path / "beir"
    (folder / "qrels").mkdir(parents=True)
    Path(birds).rename(folder / "corpus.jsonl")
    (folder / "queries.jsonl").write_text('{"_id": "q", "text": "night"}\n')
    (folder / "qrels/test.tsv").write_text("query-id\tcorpus-id\tscore\nq\towl\t1\n")
    return str(folder)


def run_evaluate(settings: IndexSettings, *arguments: str) -> Result:
    root = typer.Typer()
    root.command()(evaluate)
    return CliRunner().invoke(root, arguments, obj=settings, catch_exceptions=False)


def test_evaluate_prints_a_table_and_writes_json_and_runs(
    settings: IndexSettings, collection: str, tmp_path: Path
) -> None:
    paths = [
        "--json",
        str(tmp_path / "figures.json"),
        "--runs",
        str(tmp_path / "runs"),
        "--keep",
        str(tmp_path / "kept"),
    ]
    result = run_evaluate(settings, collection, *paths)
    printed = " ".join(result.stdout.split())
    assert "bm25 1.0000 [1.0000, 1.0000]" in printed
    assert "overlap@10 1.0000" in printed
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["systems"]["bm25"]["nDCG@10"]["mean"] == 1
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {
        f"{name}.trec" for name in ("bm25", "cls", "ot", "rrf", "fused")
    }
    assert EdgeEngine(tmp_path / "kept").builds("evaluation")[0].documents == 2


def test_evaluate_names_the_splits_there_are(settings: IndexSettings, collection: str) -> None:
    with pytest.raises(SourceError, match="splits here: test"):
        run_evaluate(settings, collection, "--split", "dev")


def test_without_the_extra_evaluate_names_what_to_install(
    settings: IndexSettings, collection: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("indexer.evaluate", "indexer.bm25"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "bm25s", None)
    with pytest.raises(MissingExtra, match=r"bm25s is not installed: pip install 'dupmae-search\[eval\]'"):
        run_evaluate(settings, collection)
