"""An index as one file and back: on each engine, across engines, damaged, broken off, and under another name."""

import json
import sqlite3
import tarfile
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import pytest

from indexer.archive import BackupError, seal, writing
from indexer.backup import Backup, backup, choose_builds
from indexer.blocks import BLOCK_POINTS
from indexer.catalog import keep_artifact, publish, rollback
from indexer.collection import CollectionOptions
from indexer.documents import Document
from indexer.journal import Write
from indexer.ledger import ledger_path
from indexer.restore import BROKEN_OFF, RestoreOptions, read_backup, restore
from indexer.settings import IndexSettings
from indexer.store import Build, Engine, Mode, StoreError
from model.artifact import Artifact, ArtifactError
from tests.indexer.brute_force import assert_equal_points, new_build, random_points, random_queries
from tests.indexer.conftest import ENGINES, opened_engine

MODES: list[Mode] = ["fused", "cls", "ot", "rrf"]
COUNT = BLOCK_POINTS + 7
WRITES = [
    Write.put(Document("gull", "Möwe", "They nest\u2028on cliffs.", "", {"z": 1, "a": [1.0, None]})),
    Write.delete("owl"),
]


class Site(NamedTuple):
    """An engine with its data folder."""

    engine: Engine
    settings: IndexSettings


def add_build(site: Site, artifact: Artifact, id: str, count: int, day: int = 1) -> Build:
    build = new_build(id, day=day, fields={"metadata.lang": "keyword"})
    build = build.model_copy(update={"fingerprint": artifact.fingerprint, "source": "ü.jsonl", "documents": count})
    with closing(site.engine.create(build)) as store:
        store.upsert(random_points(count, seed=day))
        store.flush()
        store.optimize()
    keep_artifact(site.settings, artifact)
    ready = build.model_copy(update={"state": "ready"})
    site.engine.save(ready)
    return ready


@pytest.fixture(params=ENGINES)
def source(request: pytest.FixtureRequest, tmp_path: Path, tiny_artifact: Artifact) -> Iterator[Site]:
    """An index with a published build, live writes, and a ledger that somebody has open."""
    settings = IndexSettings(data=tmp_path / "source")
    with opened_engine(request.param, settings.data) as engine:
        site = Site(engine, settings)
        build = add_build(site, tiny_artifact, "b1", COUNT)
        engine.publish(build)
        engine.journal(build.index).append(WRITES)
        ledger = ledger_path(settings.data, build.index, build.id)
        ledger.parent.mkdir(parents=True)
        with closing(sqlite3.connect(ledger)) as database:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("CREATE TABLE documents (id TEXT)")
            database.execute("INSERT INTO documents VALUES ('gull')")
            database.commit()
            yield site


@pytest.fixture(params=ENGINES)
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    """An empty site. On a server it is the source's, so what is there is told apart by the name."""
    with opened_engine(request.param, tmp_path / "target") as engine:
        yield Site(engine, IndexSettings(data=tmp_path / "target"))


@pytest.fixture
def edge(tmp_path: Path, tiny_artifact: Artifact) -> Iterator[Site]:
    settings = IndexSettings(data=tmp_path / "edge")
    with opened_engine("edge", settings.data) as engine:
        site = Site(engine, settings)
        engine.publish(add_build(site, tiny_artifact, "b1", 20))
        yield site


@pytest.fixture
def kept(edge: Site, tmp_path: Path) -> Path:
    """A backup of 20 points."""
    return make_backup(edge, tmp_path / "kept.tar")


def make_backup(site: Site, path: Path, *, every: bool = False) -> Path:
    builds = choose_builds(site.engine, "test-birds", None, every=every)
    backup(site.engine, site.settings, path, builds)
    return path


def put_back(site: Site, path: Path, **options: object) -> list[Build]:
    return restore(site.engine, site.settings, path, read_backup(path), RestoreOptions(**options))  # type: ignore[arg-type]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_restored_index_answers_as_the_old_one_on_the_same_engine_and_across(
    source: Site, target: Site, tmp_path: Path
) -> None:
    path = make_backup(source, tmp_path / "birds.tar.zst")
    (build,) = put_back(target, path, index="test-again")
    assert target.engine.published("test-again") == build
    moved = {"index": "test-again", "went_live": build.went_live}
    assert build == source.engine.published("test-birds").model_copy(update=moved)
    with closing(source.engine.open("test-birds")) as old, closing(target.engine.open("test-again")) as new:
        for one, two in zip(old.scroll(), new.scroll(), strict=True):
            assert_equal_points(one, two)
        for mode in MODES:
            for query in random_queries(3, seed=5):
                before, after = old.search(query, mode=mode), new.search(query, mode=mode)
                assert [hit.point.id for hit in after] == [hit.point.id for hit in before]
                assert [hit.score for hit in after] == pytest.approx([hit.score for hit in before], abs=1e-6)
        filter = {"must": [{"key": "metadata.lang", "match": {"value": "en"}}]}
        assert len(new.search(query, filter=filter)) == len(old.search(query, filter=filter))  # type: ignore[arg-type]


def test_however_it_is_packed_it_holds_the_same(edge: Site, tmp_path: Path) -> None:
    held = [read_backup(make_backup(edge, tmp_path / f"kept{suffix}")) for suffix in (".tar", ".tar.gz", ".tar.zst")]
    assert held[0].members == held[1].members == held[2].members


def test_model_live_writes_and_ledger_come_along(source: Site, target: Site, tmp_path: Path) -> None:
    (build,) = put_back(target, make_backup(source, tmp_path / "birds.tar"), index="test-again")
    assert Artifact.open(target.settings.data / "models" / build.fingerprint).fingerprint == build.fingerprint
    assert list(target.engine.journal("test-again").since(0)) == list(enumerate(WRITES, start=1))
    with closing(sqlite3.connect(ledger_path(target.settings.data, "test-again", build.id))) as database:
        assert database.execute("SELECT id FROM documents").fetchall() == [("gull",)]
    assert not list(target.settings.data.glob(".restore-*"))


def test_all_builds_come_back_and_the_same_one_is_published(
    edge: Site, target: Site, tiny_artifact: Artifact, tmp_path: Path
) -> None:
    newer = add_build(edge, tiny_artifact, "b2", 30, day=2)
    edge.engine.create(new_build("b3", day=3)).close()
    path = make_backup(edge, tmp_path / "all.tar", every=True)
    restored = put_back(target, path, index="test-again")
    assert [(build.id, build.state) for build in restored] == [("b2", "ready"), ("b1", "ready")]
    assert target.engine.published("test-again").id == "b1"
    with closing(target.engine.open("test-again", newer.id)) as store:
        assert store.count() == 30


def test_a_restore_can_wait_to_be_published(kept: Path, target: Site) -> None:
    put_back(target, kept, index="test-again", publish=False)
    assert "test-again" not in target.engine.indexes()
    assert [build.state for build in target.engine.builds("test-again")] == ["ready"]


def test_a_restore_into_the_same_index_replaces_what_is_published_at_the_end(
    edge: Site, kept: Path, tiny_artifact: Artifact
) -> None:
    edge.engine.publish(add_build(edge, tiny_artifact, "b2", 3, day=2))
    edge.engine.drop(edge.engine.builds("test-birds")[1])
    put_back(edge, kept)
    assert edge.engine.published("test-birds").id == "b1"
    assert [build.id for build in edge.engine.builds("test-birds")] == ["b2", "b1"]


def test_a_build_that_is_there_is_not_restored_over(edge: Site, kept: Path) -> None:
    with pytest.raises(BackupError, match=r"Build b1 of index test-birds exists; restore under another name"):
        put_back(edge, kept)


def test_what_one_machine_cannot_lay_out_is_refused_until_another_layout_is_asked(kept: Path, tmp_path: Path) -> None:
    manifest = read_backup(kept)
    wide = manifest.builds[0].build.model_copy(update={"collection": CollectionOptions(replication_factor=2)})
    clustered = manifest.model_copy(update={"builds": [manifest.builds[0].model_copy(update={"build": wide})]})
    with opened_engine("edge", tmp_path / "one") as engine:
        site = Site(engine, IndexSettings(data=tmp_path / "one"))
        with pytest.raises(StoreError, match="no replication_factor=2"):
            restore(*site, kept, clustered)
        assert engine.builds("test-birds") == []
        (build,) = restore(*site, kept, clustered, RestoreOptions(collection=CollectionOptions(hnsw_m=8)))
        assert build.collection == CollectionOptions(hnsw_m=8)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def cut_at_a_member(path: Path) -> None:
    with tarfile.open(path) as tar:
        path.write_bytes(path.read_bytes()[: tar.getmember("manifest.json").offset] + bytes(1024))


def flip(member: str) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        with tarfile.open(path) as tar:
            position = tar.getmember(member).offset_data + 40
        data = bytearray(path.read_bytes())
        data[position] ^= 1
        path.write_bytes(data)

    return damage


def write_something_else(path: Path) -> None:
    with tarfile.open(path, "w") as tar:
        tar.add(__file__, "hello.py")


DAMAGES = {
    "cut": (truncate, "is damaged or was cut"),
    "cut at a member": (cut_at_a_member, "ends before its manifest"),
    "a flipped vector": (flip("builds/b1/points-000000.npz"), "points-000000.npz is not what was written"),
    "a flipped text": (flip("builds/b1/points-000000.jsonl"), "points-000000.jsonl is not what was written"),
    "a flipped manifest": (flip("manifest.json"), "manifest.json is not what was written"),
    "another tar": (write_something_else, "is no backup of dupmae-search"),
    "no tar": (lambda path: path.write_bytes(b"hello" * 1000), "is damaged or was cut"),
    "empty": (lambda path: path.write_bytes(b""), "damaged or was cut"),
}


@pytest.mark.parametrize(("damage", "complaint"), DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_or_foreign_file_is_a_clear_error_before_anything_is_made(
    kept: Path, damage: Callable[[Path], None], complaint: str
) -> None:
    damage(kept)
    with pytest.raises(BackupError, match=complaint):
        read_backup(kept)


@pytest.mark.parametrize("suffix", [".tar.gz", ".tar.zst"])
def test_a_compressed_file_that_was_cut_is_found_out(edge: Site, tmp_path: Path, suffix: str) -> None:
    path = make_backup(edge, tmp_path / f"kept{suffix}")
    whole = path.read_bytes()
    for share in (0.0, 0.3, 0.7, 0.99):
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(BackupError):
            read_backup(path)


@pytest.mark.parametrize("name", ["../../evil", "models/x/model.onnx", "builds/b9/points-000000.npz", "extra"])
def test_a_member_that_no_backup_has_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "evil.tar"
    with writing(path) as writer:
        writer.add(name, b"x")
        facts = Backup(index="x", published=None, created=datetime.now(UTC), builds=[], members=writer.members)
        seal(writer, facts.model_dump_json().encode())
    with pytest.raises(BackupError, match="which no backup does"):
        read_backup(path)


@pytest.mark.parametrize("error", [KeyboardInterrupt, StoreError, ArtifactError])
def test_a_restore_that_ends_early_leaves_what_was_there_and_nothing_else(
    edge: Site, kept: Path, tiny_artifact: Artifact, tmp_path: Path, error: type[BaseException]
) -> None:
    edge.engine.publish(add_build(edge, tiny_artifact, "b2", 3, day=2))
    edge.engine.journal("test-birds").append(WRITES)
    before = contents(edge.settings.data)

    def stop(_: int) -> None:
        raise error("stopped")

    with pytest.raises(error):
        restore(*edge, kept, read_backup(kept), RestoreOptions(index="test-again"), stop)
    assert contents(edge.settings.data) == before
    assert edge.engine.builds("test-again") == []


def test_points_that_an_engine_changed_are_found_before_anything_is_published(kept: Path, target: Site) -> None:
    manifest = read_backup(kept)
    other = manifest.builds[0].model_copy(update={"points_sha256": "0" * 64})
    with pytest.raises(BackupError, match="holds 20 points that are not the 20 of the backup"):
        restore(*target, kept, manifest.model_copy(update={"builds": [other]}), RestoreOptions(index="test-again"))
    assert target.engine.builds("test-again") == []
    assert not list((target.settings.data / "models").glob("*"))


def test_what_a_killed_restore_left_is_marked_and_the_next_one_takes_it_away(edge: Site, kept: Path) -> None:
    begun = (
        read_backup(kept)
        .builds[0]
        .build.model_copy(update={"index": "test-again", "state": "failed", "reason": BROKEN_OFF})
    )
    with closing(edge.engine.create(begun)) as store:
        store.upsert(random_points(5, seed=9))
        store.flush()
    (edge.settings.data / ".restore-test-again/models").mkdir(parents=True)
    put_back(edge, kept, index="test-again")
    assert not list(edge.settings.data.glob(".restore-*"))
    with closing(edge.engine.open("test-again")) as store:
        assert store.count() == 20


@pytest.mark.parametrize("there", [[], WRITES[:1], WRITES, [*WRITES, Write.delete("hawk")]])
def test_live_writes_that_are_there_go_on_from_those_of_the_backup(
    source: Site, tmp_path: Path, there: list[Write]
) -> None:
    path = make_backup(source, tmp_path / "birds.tar")
    source.engine.journal("test-again").append(there)
    put_back(source, path, index="test-again")
    found = [write for _, write in source.engine.journal("test-again").since(0)]
    assert found == (there if len(there) > 2 else WRITES)


@pytest.mark.parametrize("there", [[Write.delete("hawk")], [Write.delete("hawk"), *WRITES]])
def test_a_backup_is_not_restored_over_other_live_writes(source: Site, tmp_path: Path, there: list[Write]) -> None:
    path = make_backup(source, tmp_path / "birds.tar")
    source.engine.journal("test-again").append(there)
    with pytest.raises(BackupError, match="index test-again holds other live writes than the backup"):
        put_back(source, path, index="test-again")
    assert [write for _, write in source.engine.journal("test-again").since(0)] == there
    assert source.engine.builds("test-again") == []


def test_a_restored_build_is_what_a_rollback_leaves(edge: Site, kept: Path, tiny_artifact: Artifact) -> None:
    newer = publish(edge.settings, edge.engine, add_build(edge, tiny_artifact, "b2", 3, day=2))
    edge.engine.drop(edge.engine.builds("test-birds")[1])
    put_back(edge, kept)
    assert rollback(edge.settings, edge.engine, "test-birds").id == newer.id


def test_a_backup_appears_under_its_name_only_when_it_is_complete(edge: Site, tmp_path: Path) -> None:
    path = tmp_path / "new.tar"

    def stop(_: int) -> None:
        assert not path.exists()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        backup(*edge, path, choose_builds(edge.engine, "test-birds", None, every=False), stop)
    assert not [found for found in tmp_path.iterdir() if found.is_file()]


def test_a_file_that_is_there_is_not_written_over(edge: Site, kept: Path) -> None:
    before = kept.read_bytes()
    with pytest.raises(BackupError, match="exists already"):
        make_backup(edge, kept)
    assert kept.read_bytes() == before


def test_the_ending_of_a_name_says_how_it_is_packed(tmp_path: Path) -> None:
    with pytest.raises(BackupError, match=r"ends in \.tar, \.tar\.gz, \.tar\.zst"), writing(tmp_path / "birds.zip"):
        pass


def test_only_a_ready_build_is_kept(edge: Site) -> None:
    edge.engine.create(new_build("half", day=3)).close()
    with pytest.raises(BackupError, match="has no build half that is ready"):
        choose_builds(edge.engine, "test-birds", "half", every=False)


def test_a_build_without_its_model_is_not_kept(edge: Site, tmp_path: Path, tiny_artifact: Artifact) -> None:
    (edge.settings.data / "models" / tiny_artifact.fingerprint / "model.onnx").unlink()
    with pytest.raises(ArtifactError, match="lacks the model that encoded it"):
        make_backup(edge, tmp_path / "new.tar")


def test_any_tar_shows_what_is_in_a_backup(kept: Path) -> None:
    with tarfile.open(kept) as tar:
        names = tar.getnames()
        assert (names[0], names[-2:]) == ("format.json", ["manifest.json", "manifest.json.sha256"])
        lines = tar.extractfile("builds/b1/points-000000.jsonl")
        assert lines is not None
        assert len([json.loads(line) for line in lines]) == 20
