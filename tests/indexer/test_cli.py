"""`dupmae index` and `dupmae evaluate`: what they print, write and raise. Exit codes belong to `service.cli`."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from indexer import release
from indexer.build import BuildError
from indexer.catalog import kept_artifact
from indexer.chunking import ChunkingError
from indexer.cli import app, evaluate
from indexer.edge import EdgeEngine
from indexer.ledger import Ledger, ledger_path
from indexer.points import point_id
from indexer.release import PublicationBlocked
from indexer.settings import IndexSettings
from indexer.store import Filter, IndexNotFound, StoreError
from model.artifact import Artifact, ArtifactError
from model.cli import MissingExtra
from model.encoder import Encoder
from model.lines import SourceError
from tests.indexer.brute_force import new_build

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


def test_long_documents_are_passages_of_the_length_that_was_asked_for(
    dupmae: Dupmae, tmp_path: Path, settings: IndexSettings
) -> None:
    source = tmp_path / "long.jsonl"
    source.write_text(json.dumps({"_id": "sea", "title": "birds", "text": "people of the sea work by day. " * 20}))
    assert "1 documents in 3 passages, published" in dupmae("build", str(source), "--overlap", "0").stdout
    arguments = ("--passage-tokens", "16", "--overlap", "4", "--no-title", "--json")
    facts = json.loads(dupmae("build", str(source), *arguments).stdout)
    assert facts["chunking"] == {"tokens": 16, "overlap": 4, "title": False}
    assert facts["passages"] > 10
    with pytest.raises(ChunkingError, match="passages of 63 tokens are longer than the 62"):
        dupmae("build", str(source), "--passage-tokens", "63")
    assert len(json.loads(dupmae("list", "--json").stdout)) == 2  # what cannot be made leaves nothing behind


def test_documents_come_from_standard_input(dupmae: Dupmae) -> None:
    assert "1 documents" in dupmae("build", "-", stdin=json.dumps(BIRDS[0])).stdout


def test_a_table_with_columns_of_other_names_is_built_by_mapping_them(dupmae: Dupmae, tmp_path: Path) -> None:
    (tmp_path / "birds.dat").write_text("link,head,abstract,body\nhttp://x,birds,of the sea,by day\n")
    mapped = [f"--map={pair}" for pair in ("id=link", "title=head", "text=abstract,body")]
    assert "1 documents" in dupmae("build", str(tmp_path / "birds.dat"), "--format", "csv", *mapped).stdout
    result = dupmae("build", str(tmp_path / "birds.dat"), "--map", "name=head")
    assert result.exit_code == 2
    assert "is not NAME=COLUMN" in result.stderr


def test_files_of_a_folder_that_are_not_read_are_mentioned(dupmae: Dupmae, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    notes.mkdir()
    for name in ("birds.md", "one.png", "two.png"):
        (notes / name).write_text("birds of the night")
    result = dupmae("build", str(notes))
    assert "1 documents" in result.stdout
    assert "Not read: 2 .png" in result.stderr


def test_a_build_can_wait_to_be_published(dupmae: Dupmae, birds: str) -> None:
    facts = json.loads(dupmae("build", birds, "--no-publish", "--json").stdout)
    assert not facts["published"]
    assert json.loads(dupmae("publish", facts["id"], "--json").stdout)["published"]


def test_rollback_publishes_the_build_before_and_then_finds_no_older_one(dupmae: Dupmae, birds: str) -> None:
    one, two = (json.loads(dupmae("build", birds, "--json").stdout)["id"] for _ in range(2))
    assert json.loads(dupmae("rollback", "--json").stdout)["id"] == one
    listed = json.loads(dupmae("list", "--json").stdout)
    assert [(build["id"], build["published"]) for build in listed] == [(two, False), (one, True)]
    with pytest.raises(StoreError, match=f"no ready build that was live before the published {one}"):
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
    engine.save(build.model_copy(update={"documents": 3, "passages": 3}))
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


def test_a_release_says_what_was_measured_and_what_went(
    dupmae: Dupmae, birds: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = json.loads(dupmae("build", birds, "--json").stdout)["id"]
    monkeypatch.setattr(release, "FEWEST_KNOWN_ITEMS", 3)
    assert "not judged: 2 of 3 known items can be asked" in " ".join(dupmae("build", birds).stdout.split())
    monkeypatch.setattr(release, "FEWEST_KNOWN_ITEMS", 2)
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
    assert f"Deleted of index default: {spare}" in dupmae("delete", spare).stdout
    with pytest.raises(StoreError, match="is published"):
        dupmae("delete", live)
    assert [build["id"] for build in json.loads(dupmae("list", "--json").stdout)] == [live]


def test_several_builds_are_deleted_when_it_is_confirmed_or_not_asked(dupmae: Dupmae, birds: str) -> None:
    one, two, three, four = (
        json.loads(dupmae("build", birds, "--no-publish", "--json").stdout)["id"] for _ in range(4)
    )
    assert dupmae("delete", one, two, stdin="n\n").exit_code == 1
    assert len(json.loads(dupmae("list", "--json").stdout)) == 4
    assert [build["id"] for build in json.loads(dupmae("delete", one, two, "--yes", "--json").stdout)] == [one, two]
    assert dupmae("delete", three, four, stdin="y\n").exit_code == 0
    assert json.loads(dupmae("list", "--json").stdout) == []


def test_none_of_several_builds_is_deleted_when_one_is_published(dupmae: Dupmae, birds: str) -> None:
    spare = json.loads(dupmae("build", birds, "--no-publish", "--json").stdout)["id"]
    live = json.loads(dupmae("build", birds, "--json").stdout)["id"]
    with pytest.raises(StoreError, match=r"is published; .* Nothing is deleted"):
        dupmae("delete", spare, live, "--yes")
    assert len(json.loads(dupmae("list", "--json").stdout)) == 2


def test_failed_builds_are_deleted_together(dupmae: Dupmae, birds: str, settings: IndexSettings) -> None:
    engine = EdgeEngine(settings.data)
    for build_id in ("x", "y"):
        engine.create(new_build(build_id, "default").model_copy(update={"state": "failed", "reason": "no"})).close()
    live = json.loads(dupmae("build", birds, "--json").stdout)["id"]
    assert "(no)" in dupmae("list").stdout
    assert "Deleted of index default: y, x." in dupmae("delete", "--failed", "--yes").stdout.replace("x, y", "y, x")
    assert [build["id"] for build in json.loads(dupmae("list", "--json").stdout)] == [live]
    assert "none" in dupmae("delete", "--failed").stdout


@pytest.mark.parametrize("arguments", [[], ["x", "--failed"]])
def test_delete_is_told_either_names_or_failed(dupmae: Dupmae, arguments: list[str]) -> None:
    assert dupmae("delete", *arguments).exit_code == 2


def test_a_backup_is_restored_under_another_name_and_answers(
    dupmae: Dupmae, birds: str, settings: IndexSettings, tmp_path: Path
) -> None:
    dupmae("build", birds, "--collection", "hnsw_m=8")
    path = str(tmp_path / "birds.tar.gz")
    assert "1 build(s) of index default, 2 points" in dupmae("backup", path).stdout
    assert "of index again is restored, published" in dupmae("restore", path, "--index", "again").stdout
    restored = json.loads(dupmae("list", "--index", "again", "--json").stdout)
    assert (restored[0]["published"], restored[0]["collection"]["hnsw_m"]) == (True, 8)
    (other,) = json.loads(
        dupmae("restore", path, "--index", "other", "--preset", "int8", "--no-publish", "--json").stdout
    )
    assert (other["published"], other["collection"]["quantization"]) == (False, "int8")
    store = EdgeEngine(settings.data).open("again")
    (query,) = Encoder(kept_artifact(settings, store.build)).encode_queries(["night birds"])
    assert len(store.search(query.vector)) == 2
    store.close()


def test_a_file_that_is_no_backup_is_refused(dupmae: Dupmae, birds: str) -> None:
    with pytest.raises(SourceError, match=r"the name of a backup ends in"):
        dupmae("restore", birds)


def test_a_preset_and_what_is_put_over_it_are_kept_with_the_build(dupmae: Dupmae, birds: str) -> None:
    facts = json.loads(dupmae("build", birds, "--preset", "disk", "--collection", "hnsw_m=32", "--json").stdout)
    options = facts["collection"]
    assert (options["on_disk"], options["quantization"], options["hnsw_m"]) == (True, "int8", 32)
    result = dupmae("build", birds, "--collection", "hnsw=32")
    assert result.exit_code == 2
    assert "hnsw_ef_construct" in result.stderr


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


@pytest.mark.parametrize(
    "command",
    ["build", "list", "publish", "verify", "rollback", "delete", "backup", "restore", "estimate", "reconcile"],
)
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


def test_an_estimate_says_what_an_index_will_take(dupmae: Dupmae, birds: str) -> None:
    cost = json.loads(dupmae("estimate", birds, "--workers", "2", "--json").stdout)
    assert (cost["documents"], cost["passages"], cost["workers"]) == (2, 2, 2)
    assert "2 machines like this one" in dupmae("estimate", birds, "--workers", "2").stdout


def test_list_shows_how_far_a_build_is_and_that_one_is_stopped(
    dupmae: Dupmae, birds: str, settings: IndexSettings
) -> None:
    build_id = json.loads(dupmae("build", birds, "--json").stdout)["id"]
    engine = EdgeEngine(settings.data)
    [build] = engine.builds("default")
    going = build.model_copy(
        update={"id": "going", "state": "encoding", "read": 1_500, "total": 6_000, "rate": 50.0, "passages": 0}
    )
    engine.create(going).close()
    assert "stopped 1,500 of 6,000" in dupmae("list").stdout
    with Ledger(ledger_path(settings.data, "default", "going"), "a plan"):
        shown = dupmae("list").stdout
        assert all(part in shown for part in ("encoding 1,500", "6,000, 50/s", "0:01:30"))
        rows = {row["id"]: row for row in json.loads(dupmae("list", "--json").stdout)}
    assert (rows["going"]["running"], rows["going"]["seconds_left"]) == (True, 90)
    assert (rows[build_id]["running"], rows[build_id]["seconds_left"]) == (False, None)


def test_reconcile_names_what_is_missing_and_removes_what_nobody_wrote(
    dupmae: Dupmae, birds: str, settings: IndexSettings
) -> None:
    build_id = json.loads(dupmae("build", birds, "--json").stdout)["id"]
    store = EdgeEngine(settings.data).open("default", build_id, write=True)
    point = next(store.scroll())
    store.upsert([replace(point, id=point_id("nobody"))])
    store.delete([point.id])
    store.flush()
    store.close()
    assert f"missing: {point.payload['doc_id']}" in dupmae("reconcile", build_id).stdout
    found = json.loads(dupmae("reconcile", build_id, "--mend", "--json").stdout)
    assert found == {"missing": [point.payload["doc_id"]], "strays": [point_id("nobody")]}
    assert json.loads(dupmae("reconcile", build_id, "--json").stdout) == {"missing": [], "strays": []}
    rebuilt = json.loads(dupmae("build", birds, "--json").stdout)
    assert rebuilt["documents"] - rebuilt["unchanged"] == 1
