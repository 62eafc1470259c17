"""Artifacts are kept beside builds; what goes live is ready and has every write; rollback knows what was live."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from indexer.catalog import keep_artifact, kept_artifact, models_folder, publish, rollback
from indexer.edge import EdgeEngine
from indexer.journal import Write
from indexer.settings import IndexSettings
from indexer.store import Build, BuildLocked, Engine, State, StoreError
from model.artifact import FILES, Artifact, ArtifactError
from tests.indexer.brute_force import new_build


@pytest.fixture
def settings(tmp_path: Path) -> IndexSettings:
    return IndexSettings(data=tmp_path / "data")


def test_a_kept_artifact_is_a_copy_that_outlives_its_source(
    settings: IndexSettings, tiny_artifact: Artifact, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    shutil.copytree(tiny_artifact.path, source)
    kept = keep_artifact(settings, Artifact.open(source))
    shutil.rmtree(source)
    assert kept.path == models_folder(settings) / tiny_artifact.fingerprint
    assert Artifact.open(kept.path).manifest == tiny_artifact.manifest


def test_another_whole_artifact_under_the_fingerprint_is_replaced(
    settings: IndexSettings, tiny_artifact: Artifact, tiny_artifact_int8: Artifact
) -> None:
    shutil.copytree(tiny_artifact_int8.path, models_folder(settings) / tiny_artifact.fingerprint)
    assert keep_artifact(settings, tiny_artifact).fingerprint == tiny_artifact.fingerprint


def test_an_artifact_that_was_exchanged_since_it_was_opened_is_not_kept(
    settings: IndexSettings, tiny_artifact: Artifact, tiny_artifact_int8: Artifact, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    shutil.copytree(tiny_artifact.path, source)
    opened = Artifact.open(source)
    for name in FILES:
        shutil.copy2(tiny_artifact_int8.path / name, source)
    with pytest.raises(ArtifactError, match=f"{opened.fingerprint[:12]} is expected"):
        keep_artifact(settings, opened)
    assert list(models_folder(settings).iterdir()) == []


def test_a_build_without_its_model_says_how_to_get_it_back(settings: IndexSettings) -> None:
    build = Build(id="b1", index="notes", fingerprint="f" * 64, dense_dim=16, created=datetime.now(UTC))
    with pytest.raises(ArtifactError, match=r"Build b1 of index notes lacks the model .*build the index again\.$"):
        kept_artifact(settings, build)


def add(
    settings: IndexSettings, engine: Engine, artifact: Artifact, id: str, day: int, state: State = "ready"
) -> Build:
    """An empty build that was begun on a day of January."""
    kept = keep_artifact(settings, artifact)
    facts = {"fingerprint": kept.fingerprint, "dense_dim": kept.manifest.dense_dim, "state": state}
    build = new_build(id, day=day).model_copy(update=facts)
    engine.create(build).close()
    return build


@pytest.mark.parametrize("state", ["encoding", "failed"])
def test_a_build_that_is_not_ready_is_refused_before_anything_is_written_into_it(
    settings: IndexSettings, engine: Engine, tiny_artifact: Artifact, state: State
) -> None:
    build = add(settings, engine, tiny_artifact, "half", 1, state)
    engine.journal("test-birds").append([Write.delete("gull")])
    with pytest.raises(StoreError, match=f"Build half of index test-birds is {state}; .*command that began it again"):
        publish(settings, engine, build)
    with pytest.raises(StoreError, match=f"is {state}"):
        publish(settings, engine, build.model_copy(update={"state": "ready"}))
    assert (engine.builds("test-birds")[0].went_live, engine.indexes()) == (None, [])


def test_a_build_that_somebody_reads_does_not_go_live_without_the_live_writes(
    settings: IndexSettings, tiny_artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexer.catalog.LETTING_GO_S", 0.0)
    engine = EdgeEngine(settings.data)
    one, two = (add(settings, engine, tiny_artifact, id, day) for id, day in (("one", 1), ("two", 2)))
    one, two = publish(settings, engine, one), publish(settings, engine, two)
    engine.journal("test-birds").append([Write.delete("gull")])
    with closing(engine.open("test-birds", "one")):
        with pytest.raises(BuildLocked, match="is being read"):
            rollback(settings, engine, "test-birds")
        with pytest.raises(BuildLocked, match="is being read"):
            publish(settings, engine, one)
        assert engine.published("test-birds") == two
    with closing(engine.open("test-birds")):
        assert publish(settings, engine, two) == two, "whoever writes to what is live replays by itself"
    assert rollback(settings, engine, "test-birds").journal == 1


def test_a_build_that_a_service_is_just_letting_go_is_waited_for(
    settings: IndexSettings, tiny_artifact: Artifact
) -> None:
    engine = EdgeEngine(settings.data)
    for id, day in (("one", 1), ("two", 2)):
        publish(settings, engine, add(settings, engine, tiny_artifact, id, day))
    engine.journal("test-birds").append([Write.delete("gull")])
    left = engine.open("test-birds", "one")
    with ThreadPoolExecutor(1) as operator:
        going_back = operator.submit(rollback, settings, engine, "test-birds")
        with pytest.raises(TimeoutError):
            going_back.result(0.2)
        left.close()
        assert (going_back.result().id, going_back.result().journal) == ("one", 1)


def test_rollback_goes_back_to_what_was_live_and_not_to_what_is_older(
    settings: IndexSettings, engine: Engine, tiny_artifact: Artifact
) -> None:
    broken_off, first, second, third, _ = (
        add(settings, engine, tiny_artifact, id, day)
        for day, id in enumerate(("resumed", "b", "c", "d", "unpublished"), 1)
    )
    for build in (first, second, broken_off):
        publish(settings, engine, build)
    assert [rollback(settings, engine, "test-birds").id for _ in range(2)] == ["c", "b"]
    with pytest.raises(StoreError, match="no ready build that was live before the published b; nothing changed"):
        rollback(settings, engine, "test-birds")
    publish(settings, engine, third)
    assert rollback(settings, engine, "test-birds").id == "b", "what was rolled back from is no target"


def test_builds_of_before_the_time_was_kept_are_ordered_by_when_they_were_begun(
    settings: IndexSettings, engine: Engine, tiny_artifact: Artifact
) -> None:
    resumed, *old = (add(settings, engine, tiny_artifact, id, day) for day, id in enumerate(("resumed", "b", "c"), 1))
    for build in old:
        engine.publish(build)
    assert rollback(settings, engine, "test-birds").id == "b"
    publish(settings, engine, resumed)
    assert rollback(settings, engine, "test-birds").id == "b"


def test_publishing_what_is_live_changes_nothing(
    settings: IndexSettings, engine: Engine, tiny_artifact: Artifact
) -> None:
    one = publish(settings, engine, add(settings, engine, tiny_artifact, "one", 1))
    assert publish(settings, engine, one) == one == engine.published("test-birds")
