"""A backup put back: into the same data folder or another, the same engine or another, the same name or another.

The file is read twice: once to prove it whole, before anything is made, and once to restore it. What was published
stays until every restored build has been read back from the engine and found equal to the backup to the last bit. A
failure removes what was made; a kill leaves a build marked failed, which the next attempt takes away.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from pydantic import ValidationError

from indexer.archive import MANIFEST, BackupError, Member, reading, verify
from indexer.backup import JOURNAL, LEDGER, Backup, HeldBuild, Watch, journal_lines
from indexer.blocks import PointsDigest, unpack
from indexer.catalog import go_live, keep_artifact, models_folder
from indexer.collection import CollectionOptions
from indexer.journal import Journal, Write
from indexer.ledger import ledger_path
from indexer.settings import IndexSettings
from indexer.store import Build, Engine, Store, StoreError, check_build
from model.artifact import FILES, Artifact

BROKEN_OFF = "its restore was broken off"
"""The reason of a build that is being restored; it goes when the build is whole."""

WINDOW = 256
"""Live writes that are appended at once."""

BLOCK = re.compile(r"points-\d{6}\.(jsonl|npz)")


@dataclass(frozen=True)
class RestoreOptions:
    """How a backup is put back.

    Attributes:
        index: Name to restore it under; None for the one it had.
        publish: Answer from the build that was published when the backup was made.
        collection: How the engine lays out the points; None as the builds had it.
    """

    index: str | None = None
    publish: bool = True
    collection: CollectionOptions | None = None


def read_backup(path: Path, watch: Watch = lambda _: None) -> Backup:
    """Prove that a file is a whole backup, and say what it holds.

    Args:
        path: The file.
        watch: Told now and then how many of its bytes were read.

    Raises:
        BackupError: It is none, of a newer release, or damaged; the message names the member.
    """
    text, found = verify(path, watch)
    try:
        manifest = Backup.model_validate_json(text)
    except ValidationError as error:
        field = ".".join(map(str, error.errors()[0]["loc"]))
        raise BackupError(
            f"{path}: its manifest is not one that this release reads ({field}: {error.errors()[0]['msg']}); "
            "restore it with the release that made it"
        ) from error
    for name in sorted(found.keys() | manifest.members.keys()):
        if found.get(name) != manifest.members.get(name):
            raise BackupError(f"{path} is damaged: {name} is not what was written; fetch it again")
    for name in found:
        _check_name(path, name, manifest)
    for fingerprint in {held.build.fingerprint for held in manifest.builds}:
        if not {f"models/{fingerprint}/{file}" for file in FILES} <= found.keys():
            raise BackupError(f"{path} lacks the model {fingerprint[:12]} of its builds; make the backup again")
    return manifest


def restore(
    engine: Engine,
    settings: IndexSettings,
    path: Path,
    manifest: Backup,
    options: RestoreOptions = RestoreOptions(),  # frozen
    watch: Watch = lambda _: None,
) -> list[Build]:
    """Put back every build of a backup.

    Args:
        engine: Where they go.
        settings: Say where models and ledgers go.
        path: The file.
        manifest: What `read_backup` said of it.
        options: Name, layout, and whether to publish.
        watch: Told after each block how many points are stored.

    Returns:
        The builds, ready, as the backup has them in order.

    Raises:
        ArtifactError: A model in the backup is not what its name says.
        BackupError: A build of this id or another journal is there, or the file changed while it was read.
        StoreError: The engine failed, or cannot lay the builds out as asked.
    """
    index = options.index or manifest.index
    held = [_moved(each, index, options.collection) for each in manifest.builds]
    for each in held:
        _make_room(engine, each.build)
    journal = engine.journal(index)
    _check_journal(journal, index, manifest)
    with _scratch(settings.data / f".restore-{index}") as folder, ExitStack() as undo:
        _fill(engine, path, manifest, held, folder, undo, watch)
        _keep_artifacts(settings, folder, undo)
        for each in held:
            ledger = ledger_path(settings.data, index, each.build.id)
            _put(folder / "builds" / each.build.id / LEDGER, ledger, undo)
        if (lines := folder / JOURNAL).exists():
            _append_writes(journal, index, lines)
        for each in held:
            engine.save(each.build)
        builds = [each.build for each in held]
        if options.publish:
            builds = [go_live(engine, build) if build.id == manifest.published else build for build in builds]
        undo.pop_all()
    return builds


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """An empty folder for a while, under a name that the next attempt finds if this one is killed."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def _moved(held: HeldBuild, index: str, collection: CollectionOptions | None) -> HeldBuild:
    build = held.build.model_copy(
        update={"index": index, "collection": held.build.collection if collection is None else collection}
    )
    check_build(build)
    return held.model_copy(update={"build": build})


def _make_room(engine: Engine, build: Build) -> None:
    """Take away what a killed attempt left; refuse to touch anything else."""
    for present in engine.builds(build.index):
        if present.id == build.id and present.reason == BROKEN_OFF:
            engine.drop(present)
        elif present.id == build.id:
            raise BackupError(
                f"Build {build.id} of index {build.index} exists; restore under another name (--index), or delete it "
                "first"
            )


def _check_journal(journal: Journal, index: str, manifest: Backup) -> None:
    """As many live writes as the backup has, or more, begin with those of the backup; fewer are compared later."""
    kept = manifest.members.get(JOURNAL)
    if kept is None:
        return
    sha, left = hashlib.sha256(), kept.bytes
    for line in journal_lines(journal):
        sha.update(line[:left])
        left -= min(left, len(line))
        if not left:
            break
    if not left and sha.hexdigest() != kept.sha256:
        raise _other_writes(index)


def _append_writes(journal: Journal, index: str, path: Path) -> None:
    """Append the live writes of a backup, from where the journal ends: a killed restore may have begun it."""
    with path.open("rb") as lines:
        for present, line in zip(journal_lines(journal), lines, strict=False):
            if present != line:
                raise _other_writes(index)
        while window := list(islice(lines, WINDOW)):
            journal.append([_write(line) for line in window])


def _write(line: bytes) -> Write:
    try:
        return Write.from_record(json.loads(line))
    except ValueError as error:
        raise BackupError(
            f"{JOURNAL} holds a line that is no live write ({error}); restore it with the release that made it"
        ) from error


def _other_writes(index: str) -> BackupError:
    return BackupError(f"index {index} holds other live writes than the backup; restore under another name (--index)")


def _fill(
    engine: Engine, path: Path, manifest: Backup, held: list[HeldBuild], folder: Path, undo: ExitStack, watch: Watch
) -> None:
    """Store every point, copy every file into `folder`, and prove that the engine returns what the backup holds."""
    with ExitStack() as opened:
        stores: dict[str, Store] = {}
        for each in held:
            begun = each.build.model_copy(update={"state": "failed", "reason": BROKEN_OFF})
            undo.callback(_drop, engine, begun)
            stores[each.build.id] = opened.enter_context(closing(engine.create(begun)))
        done = 0
        for build_id, lines, arrays in _blocks(path, manifest, folder):
            points = unpack(lines, arrays)
            stores[build_id].upsert(points)
            if stores[build_id].ripe():
                stores[build_id].optimize()
            done += len(points)
            watch(done)
        for each in held:
            store = stores[each.build.id]
            store.flush()
            store.optimize()
            _prove(store, each)


def _blocks(path: Path, manifest: Backup, folder: Path) -> Iterator[tuple[str, bytes, bytes]]:
    """Build id, lines and arrays of each block; what else comes by is copied into `folder`."""
    lines = b""
    with reading(path) as members:
        for member in members:
            if member.name == MANIFEST:
                return
            if member.name.endswith(".npz"):
                yield member.name.split("/")[1], lines, _read(path, member, manifest)
            elif BLOCK.fullmatch(member.name.rpartition("/")[2]):
                lines = _read(path, member, manifest)
            else:
                _copy(path, member, manifest, folder / member.name)


def _read(path: Path, member: Member, manifest: Backup) -> bytes:
    data = b"".join(member.chunks())
    _check_unchanged(path, member, manifest)
    return data


def _copy(path: Path, member: Member, manifest: Backup, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as file:
        file.writelines(member.chunks())
    _check_unchanged(path, member, manifest)


def _check_unchanged(path: Path, member: Member, manifest: Backup) -> None:
    if member.digest() != manifest.members.get(member.name):
        raise BackupError(f"{path} changed while it was read, at {member.name}; restore it again")


def _prove(store: Store, held: HeldBuild) -> None:
    digest = PointsDigest()
    for point in store.scroll():
        digest.add(point)
    if (digest.count, digest.hexdigest()) != (held.points, held.points_sha256):
        raise BackupError(
            f"build {held.build.id} holds {digest.count} points that are not the {held.points} of the backup; is "
            "another process writing to it?"
        )


def _keep_artifacts(settings: IndexSettings, folder: Path, undo: ExitStack) -> None:
    for source in (folder / "models").iterdir():
        artifact = Artifact.open(source)
        if artifact.fingerprint != source.name:
            raise BackupError(f"models/{source.name} of the backup is artifact {artifact.fingerprint}; make it again")
        kept = models_folder(settings) / source.name
        if not kept.exists():
            undo.callback(shutil.rmtree, kept, ignore_errors=True)
        keep_artifact(settings, artifact)


def _put(source: Path, target: Path, undo: ExitStack) -> None:
    """Move a file to its place, if there is one; without the side files of a database that was there before."""
    if source.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        for side in ("-wal", "-shm"):
            target.with_name(target.name + side).unlink(missing_ok=True)
        undo.callback(target.unlink, missing_ok=True)
        source.replace(target)


def _drop(engine: Engine, build: Build) -> None:
    with suppress(StoreError):  # it was never made, or the engine is away: what went wrong first must not be hidden
        engine.drop(build)


def _check_name(path: Path, name: str, manifest: Backup) -> None:
    """Only what a backup may hold, so that no name leads out of a folder."""
    match name.split("/"):
        case ["format.json" | "journal.jsonl"]:
            return
        case ["models", fingerprint, file]:
            known = file in FILES and fingerprint in {held.build.fingerprint for held in manifest.builds}
        case ["builds", build_id, file]:
            known = build_id in {held.build.id for held in manifest.builds}
            known = known and (file == LEDGER or BLOCK.fullmatch(file) is not None)
        case _:
            known = False
    if not known:
        raise BackupError(f"{path} holds {name!r}, which no backup does; it was made by something else")
