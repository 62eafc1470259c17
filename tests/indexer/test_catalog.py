"""The artifact that encoded a build is kept beside it, under its own fingerprint and no other's."""

import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from indexer.catalog import keep_artifact, kept_artifact, models_folder
from indexer.settings import IndexSettings
from indexer.store import Build
from model.artifact import FILES, Artifact, ArtifactError


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
