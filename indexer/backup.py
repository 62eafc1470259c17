"""An index as one file: its builds, which one is published, the models that made them, and its live writes.

It does not depend on the engine: points are streamed out of a `Store`, so what was embedded can be restored into a
server and the other way round (`indexer.restore`). `indexer.archive` has the layout of the file.
"""

import json
import sqlite3
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from indexer.archive import BackupError, Digest, Writer, seal, writing
from indexer.blocks import PointsDigest, blocks, pack
from indexer.catalog import find_build, kept_artifact
from indexer.journal import Journal
from indexer.ledger import ledger_path
from indexer.settings import IndexSettings
from indexer.store import Build, Engine
from model.artifact import FILES, Artifact

JOURNAL = "journal.jsonl"
LEDGER = "ledger.sqlite"

Watch = Callable[[int], None]


class HeldBuild(BaseModel):
    """One build of a backup: its facts, how many points it has, and the SHA-256 of `PointsDigest` over them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    build: Build
    points: int
    points_sha256: str


class Backup(BaseModel):
    """The manifest of a backup.

    Attributes:
        index: The index it was made of.
        published: Id of the build the index answered from, if it is in here.
        created: When it was made.
        builds: What it holds.
        members: Size and SHA-256 of every member before the manifest.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    index: str
    published: str | None
    created: datetime
    builds: list[HeldBuild]
    members: dict[str, Digest]


def backup(
    engine: Engine,
    settings: IndexSettings,
    path: Path,
    builds: Sequence[Build],
    watch: Watch = lambda _: None,
) -> Backup:
    """Write builds of one index into a new file.

    Args:
        engine: Holds the builds.
        settings: Says where their models and ledgers lie.
        path: The file; its ending says how it is compressed.
        builds: As `choose_builds` gives them.
        watch: Told after each block how many points are written.

    Raises:
        ArtifactError: A model is missing or damaged.
        BackupError: The file exists, or a ledger cannot be read.
        StoreError: The engine failed, or a build is being written.
    """
    index = builds[0].index
    artifacts = {build.fingerprint: kept_artifact(settings, build) for build in builds}
    published = engine.published(index).id if index in engine.indexes() else None
    done = 0

    def count(points: int) -> None:
        nonlocal done
        done += points
        watch(done)

    with writing(path) as writer:
        for artifact in artifacts.values():
            _add_artifact(writer, artifact)
        held = [_add_build(writer, engine, settings, build, count) for build in builds]
        _add_journal(writer, engine.journal(index))
        manifest = Backup(
            index=index,
            published=published if published in {build.id for build in builds} else None,
            created=datetime.now(UTC),
            builds=held,
            members=writer.members,
        )
        seal(writer, manifest.model_dump_json(indent=1).encode())
    return manifest


def choose_builds(engine: Engine, index: str, build_id: str | None, *, every: bool) -> list[Build]:
    """The published build; or the one that is named; or every one that is ready.

    Raises:
        BackupError: None is ready, or the named one is not.
        IndexNotFound: Nothing is published, or there is no build of this id.
    """
    if every:
        chosen = [build for build in engine.builds(index) if build.state == "ready"]
    elif build_id is None:
        return [engine.published(index)]
    else:
        chosen = [build for build in [find_build(engine, index, build_id)] if build.state == "ready"]
    if not chosen:
        named = "no build" if every else f"no build {build_id}"
        raise BackupError(f"Index {index!r} has {named} that is ready, and only such a one is worth keeping")
    return chosen


def journal_lines(journal: Journal) -> Iterator[bytes]:
    """The live writes of an index as a backup has them: a JSON object a line, in order, the same on every engine."""
    for _, write in journal.since(0):
        yield json.dumps(write.record(), ensure_ascii=False, sort_keys=True).encode() + b"\n"


def _add_artifact(writer: Writer, artifact: Artifact) -> None:
    for name in FILES:
        writer.add_file(f"models/{artifact.fingerprint}/{name}", artifact.path / name)


def _add_build(writer: Writer, engine: Engine, settings: IndexSettings, build: Build, count: Watch) -> HeldBuild:
    digest = PointsDigest()
    with closing(engine.open(build.index, build.id)) as store:
        for number, block in enumerate(blocks(store.scroll())):
            for point in block:
                digest.add(point)
            lines, arrays = pack(block)
            writer.add(f"builds/{build.id}/points-{number:06}.jsonl", lines)
            writer.add(f"builds/{build.id}/points-{number:06}.npz", arrays)
            count(len(block))
    if (ledger := ledger_path(settings.data, build.index, build.id)).is_file():
        with tempfile.TemporaryDirectory() as scratch:
            copy = Path(scratch, LEDGER)
            _copy_database(ledger, copy)
            writer.add_file(f"builds/{build.id}/{LEDGER}", copy)
    return HeldBuild(build=build, points=digest.count, points_sha256=digest.hexdigest())


def _add_journal(writer: Writer, journal: Journal) -> None:
    """Taken last: it then has every write that the points have, and a write it has twice replaces itself."""
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch, JOURNAL)
        with copy.open("wb") as file:
            file.writelines(journal_lines(journal))
        if copy.stat().st_size:
            writer.add_file(JOURNAL, copy)


def _copy_database(source: Path, target: Path) -> None:
    """A copy as of one moment, whoever writes meanwhile."""
    try:
        with (
            closing(sqlite3.connect(f"{source.resolve().as_uri()}?mode=ro", uri=True)) as old,
            closing(sqlite3.connect(target)) as new,
        ):
            old.backup(new)
    except sqlite3.Error as error:
        raise BackupError(f"{source} cannot be read ({error}); repair it, or move it away to leave it out") from error
