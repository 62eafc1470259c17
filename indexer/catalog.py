"""Which engine holds the indexes, which builds there are, and the models that made them.

A build can only be searched with the artifact that encoded it. So the artifact is copied beside the indexes, under its
fingerprint, before the build is published: replacing or retraining the model elsewhere never breaks what is live.
"""

import logging
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import closing, suppress
from datetime import UTC, datetime
from operator import attrgetter
from pathlib import Path
from time import monotonic, sleep

from indexer.live import LiveBuild
from indexer.reuse import opened_base
from indexer.settings import IndexSettings
from indexer.store import Build, BuildLocked, Engine, IndexNotFound, Store, StoreError, check_ready
from model.artifact import BUNDLED, GRAPH, MANIFEST, MODEL_CARD, TOKENIZER, Artifact, ArtifactError
from model.encoder import Encoder

LOGGER = logging.getLogger("dupmae.catalog")

LETTING_GO_S = 10.0
"""How long a build that is live no more is waited for: a service that has left it answers its last requests first."""


class NoEarlierBuild(StoreError):
    """There is nothing to roll back to."""


def open_engine(settings: IndexSettings, *, timeout_s: int = 10) -> Engine:
    """The Qdrant server of the settings, or else the embedded engine in the data folder.

    Args:
        settings: Where it is.
        timeout_s: How long a server may take for a request.

    Raises:
        StoreUnavailable: The server cannot be reached.
    """
    if settings.qdrant_url is None:
        from indexer.edge import EdgeEngine

        return EdgeEngine(settings.data)
    from indexer.qdrant import connect

    key = settings.qdrant_api_key
    return connect(settings.qdrant_url, key.get_secret_value() if key else None, timeout_s=timeout_s)


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


def replayed(settings: IndexSettings, engine: Engine, build: Build, encoder: Encoder | None = None) -> Build:
    """A build brought up to date with the live writes of its index; its facts are saved.

    The published build stays as it is while it is open elsewhere: the service that writes to it replays by itself.

    Args:
        settings: Where its artifact is kept.
        engine: Holds it.
        build: Not open in this process.
        encoder: Made its vectors; opened when it is needed and not given.

    Raises:
        ArtifactError: There are writes to replay and its artifact is missing or damaged.
        BuildLocked: There are, and a build that is not published stays open elsewhere; nobody else would replay them.
        StoreError: It is not ready, the engine failed, or the journal is damaged.
    """
    check_ready(build)
    if engine.journal(build.index).position() == build.journal:
        return build
    encoder = encoder or open_encoder(settings, kept_artifact(settings, build))
    store = _opened(engine, build)
    if store is None:
        return build
    with closing(store), opened_base(engine, build) as base:
        live = LiveBuild(engine, store, encoder)
        live.catch_up(base)
        live.save()
    return live.build


def _opened(engine: Engine, build: Build) -> Store | None:
    """The build to write to; None when it is published and open elsewhere."""
    until, told = monotonic() + LETTING_GO_S, False
    while True:
        try:
            return engine.open(build.index, build.id, write=True)
        except BuildLocked:
            if _is_live(engine, build):
                return None
            if monotonic() > until:
                raise
            if not told:
                LOGGER.info("build %s is still open elsewhere; waiting %g s at most", build.id, LETTING_GO_S)
                told = True
            sleep(0.05)


def publish(settings: IndexSettings, engine: Engine, build: Build) -> Build:
    """Let an index answer from a build, live writes included, and return its facts.

    Raises:
        ArtifactError: The model that encoded it is not kept, so nobody could search it.
        StoreError: As `replayed` and `Engine.publish`.
    """
    check_ready(build)
    kept_artifact(settings, build)
    return go_live(engine, replayed(settings, engine, build))


def go_live(engine: Engine, build: Build) -> Build:
    """Move the pointer of an index to a build, which knows from then on when that was, and return its facts.

    The time is saved first: a crash in between leaves one that `rollback` does not take for the past.

    Raises:
        StoreError: As `Engine.publish`.
    """
    build = find_build(engine, build.index, build.id)
    check_ready(build)
    if not _is_live(engine, build):
        if build.index in engine.indexes() and not (live := engine.published(build.index)).went_live:
            engine.save(live.model_copy(update={"went_live": live.created}))  # of before the time was kept
        build = build.model_copy(update={"went_live": datetime.now(UTC)})
        engine.save(build)
    engine.publish(build)
    return build


def choose_spare(engine: Engine, index: str, build_ids: Sequence[str] | None) -> list[Build]:
    """The builds that are named, each once; or every failed one. None of them is published.

    Raises:
        IndexNotFound: One is not there.
        StoreError: One is published.
    """
    if build_ids is None:
        return [build for build in engine.builds(index) if build.state == "failed"]
    chosen = [find_build(engine, index, id) for id in dict.fromkeys(build_ids)]
    live = engine.published(index).id if index in engine.indexes() else None
    if live in build_ids:
        raise StoreError(f"Build {live} of index {index} is published; publish another one first. Nothing is deleted.")
    return chosen


def rollback(settings: IndexSettings, engine: Engine, index: str) -> Build:
    """Publish the ready build that was live before the published one, and return it.

    It keeps the time it went live then, and the build that is left forgets its own: the next rollback goes one further
    back, and none ever returns to what was rolled back from.

    Raises:
        ArtifactError: As `publish`.
        IndexNotFound: Nothing is published.
        NoEarlierBuild: No other build was live before.
        StoreError: As `publish`.
    """
    live = engine.published(index)
    build = _live_before(engine, live)
    kept_artifact(settings, build)
    build = replayed(settings, engine, build)
    engine.publish(build)
    if live.went_live:
        engine.save(find_build(engine, index, live.id).model_copy(update={"went_live": None}))
    return build


def _live_before(engine: Engine, live: Build) -> Build:
    """The build to go back to; where no build knows when it was live, the newest that is older."""
    others = [build for build in engine.builds(live.index) if build.state == "ready" and build.id != live.id]
    until = live.went_live or datetime.now(UTC)
    if past := [build for build in others if build.went_live and build.went_live < until]:
        return max(past, key=attrgetter("went_live"))
    if older := [build for build in others if live.went_live is None and build.created < live.created]:
        return older[0]
    raise NoEarlierBuild(
        f"Index {live.index!r} has no ready build that was live before the published {live.id}; nothing changed. "
        "Publish another by its id: `dupmae index list` shows them."
    )


def _is_live(engine: Engine, build: Build) -> bool:
    return build.index in engine.indexes() and engine.published(build.index).id == build.id


def _open(folder: Path, fingerprint: str) -> Artifact:
    """An artifact, if it is the one that is meant: a whole one of another model would score with other vectors."""
    artifact = Artifact.open(folder)
    if artifact.fingerprint != fingerprint:
        raise ArtifactError(
            f"{folder} holds artifact {artifact.fingerprint[:12]} where {fingerprint[:12]} is expected; put that one "
            "there, or build the index again"
        )
    return artifact
