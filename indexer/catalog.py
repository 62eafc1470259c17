"""Which engine holds the indexes, which builds there are, and the models that made them.

A build can only be searched with the artifact that encoded it. So the artifact is copied beside the indexes, under its
fingerprint, before the build is published: replacing or retraining the model elsewhere never breaks what is live.
"""

import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from indexer.settings import IndexSettings
from indexer.store import Build, Engine, IndexNotFound, StoreError
from model.artifact import BUNDLED, GRAPH, MANIFEST, MODEL_CARD, TOKENIZER, Artifact, ArtifactError
from model.encoder import Encoder


def open_engine(settings: IndexSettings) -> Engine:
    """The Qdrant server of the settings, or else the embedded engine in the data folder.

    Raises:
        StoreUnavailable: The server cannot be reached.
    """
    if settings.qdrant_url is None:
        from indexer.edge import EdgeEngine

        return EdgeEngine(settings.data)
    from indexer.qdrant import connect

    key = settings.qdrant_api_key
    return connect(settings.qdrant_url, key.get_secret_value() if key else None)


def models_folder(settings: IndexSettings) -> Path:
    """Where artifacts are kept, each in a folder named by its fingerprint."""
    return settings.data / "models"


def new_artifact(settings: IndexSettings) -> Artifact:
    """The artifact that new builds are made with: the one of the settings, or else the bundled one.

    Raises:
        ArtifactError: It is missing or damaged.
    """
    return Artifact.open(settings.artifact or BUNDLED)


def keep_artifact(settings: IndexSettings, artifact: Artifact) -> Artifact:
    """Copy an artifact beside the indexes, unless a whole copy is there already; the copy is verified.

    Raises:
        ArtifactError: The artifact changed or was damaged while it was copied.
    """
    kept = models_folder(settings) / artifact.fingerprint
    damaged = False
    if kept.is_dir():
        try:
            return _open(kept, artifact.fingerprint)
        except ArtifactError:
            damaged = True
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=kept.parent) as scratch:
        copy = Path(scratch, "copy")
        copy.mkdir()
        for name in (GRAPH, TOKENIZER, MANIFEST, MODEL_CARD):
            shutil.copy2(artifact.path / name, copy)
        _open(copy, artifact.fingerprint)
        if damaged:
            kept.replace(Path(scratch, "damaged"))
        with suppress(OSError):  # another process was first; what it kept is opened, and so verified, below
            copy.replace(kept)
    return _open(kept, artifact.fingerprint)


def kept_artifact(settings: IndexSettings, build: Build) -> Artifact:
    """The artifact that encoded a build.

    Raises:
        ArtifactError: Its copy is missing, damaged or another artifact.
    """
    try:
        return _open(models_folder(settings) / build.fingerprint, build.fingerprint)
    except ArtifactError as error:
        raise ArtifactError(
            f"Build {build.id} of index {build.index} lacks the model that encoded it: {error}. "
            "Put that artifact back, or build the index again."
        ) from error


def open_encoder(settings: IndexSettings, artifact: Artifact) -> Encoder:
    """An encoder that runs where and how the settings say.

    Raises:
        ArtifactError: Graph or tokenizer do not fit the manifest.
        ProviderError: It cannot run there.
    """
    return Encoder(
        artifact,
        provider=settings.provider,
        threads=settings.threads,
        arena=settings.arena,
        max_batch_tokens=settings.max_batch_tokens,
    )


def find_build(engine: Engine, index: str, build_id: str) -> Build:
    """A build by its id.

    Raises:
        IndexNotFound: There is none; the message names those there are.
    """
    builds = {build.id: build for build in engine.builds(index)}
    if build_id not in builds:
        known = ", ".join(builds) or "none"
        raise IndexNotFound(f"Index {index!r} has no build {build_id!r}; builds that exist: {known}.")
    return builds[build_id]


def newest_build(engine: Engine, index: str) -> Build:
    """The build of an index that was begun last, whatever became of it.

    Raises:
        IndexNotFound: The index has none.
    """
    builds = engine.builds(index)
    if not builds:
        raise IndexNotFound(f"Index {index!r} has no build. Make one with `dupmae index build`.")
    return builds[0]


def rollback(engine: Engine, index: str) -> Build:
    """Publish the newest ready build that is older than the published one, and return it.

    Raises:
        IndexNotFound: Nothing is published.
        StoreError: There is no older build.
    """
    published = engine.published(index)
    older = [build for build in engine.builds(index) if build.state == "ready" and build.created < published.created]
    if not older:
        raise StoreError(
            f"Index {index!r} has no ready build older than the published {published.id}; nothing changed."
        )
    engine.publish(older[0])
    return older[0]


def _open(folder: Path, fingerprint: str) -> Artifact:
    """An artifact, if it is the one that is meant: a whole one of another model would score with other vectors."""
    artifact = Artifact.open(folder)
    if artifact.fingerprint != fingerprint:
        raise ArtifactError(
            f"{folder} holds artifact {artifact.fingerprint[:12]} where {fingerprint[:12]} is expected; put that one "
            "there, or build the index again"
        )
    return artifact
