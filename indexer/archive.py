"""The file of a backup: a tar, plain or compressed, that can be written and read in one go and proves itself whole.

    format.json                        first: what this is, so that a foreign file is known at once
    models/<fingerprint>/<file>        the artifacts
    builds/<id>/points-<n>.jsonl       ids and payloads of a block of points, one JSON object a line
    builds/<id>/points-<n>.npz         their vectors, as numpy arrays
    builds/<id>/ledger.sqlite       which documents the build holds, where it is known
    journal.jsonl                      live writes, where there were any: a put or a delete a line, in order
    manifest.json                      the builds, which one was published, and SHA-256 and size of every member above
    manifest.json.sha256               last: the digest of the manifest, as `sha256sum` writes it

It appears under its name only when it is complete. Every member is small or a copied file, so memory is constant.
"""

import hashlib
import io
import os
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from model.lines import SourceError

FORMAT = "format.json"
MANIFEST = "manifest.json"
SEAL = "manifest.json.sha256"
SUFFIXES = (".tar", ".tar.gz", ".tar.zst")
MAX_MANIFEST_BYTES = 2**28

_MODES: dict[tuple[str, str], Literal["r|", "w|", "r|gz", "w|gz"]] = {
    (".tar", "r"): "r|",
    (".tar", "w"): "w|",
    (".tar.gz", "r"): "r|gz",
    (".tar.gz", "w"): "w|gz",
}
"""The bar makes a stream of it: no seeking, constant memory."""


class BackupError(SourceError):
    """A backup cannot be made of this, or the file is none or damaged; the message names it and the remedy."""


class Format(BaseModel):
    """What stands first in every backup."""

    model_config = ConfigDict(frozen=True)

    format: Literal["dupmae-backup"] = "dupmae-backup"
    version: Literal[1] = 1


class Digest(BaseModel):
    """Size and SHA-256 of a member."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    bytes: int
    sha256: str


class Writer:
    """A backup that is being written.

    Attributes:
        members: What it holds so far.
    """

    def __init__(self, tar: tarfile.TarFile) -> None:
        self.members: dict[str, Digest] = {}
        self._tar = tar

    def add(self, name: str, data: bytes) -> None:
        """Append a member."""
        self._append(name, io.BytesIO(data), len(data))

    def add_file(self, name: str, path: Path) -> None:
        """Append a copy of a file."""
        with path.open("rb") as file:
            self._append(name, file, path.stat().st_size)

    def _append(self, name: str, file: IO[bytes], size: int) -> None:
        assert name not in self.members, name
        info = tarfile.TarInfo(name)
        info.size = size
        source = _Hashing(file)
        self._tar.addfile(info, source)
        self.members[name] = Digest(bytes=size, sha256=source.sha.hexdigest())


class Member:
    """A member that is being read: once, when it comes."""

    def __init__(self, name: str, size: int, file: IO[bytes]) -> None:
        self.name = name
        self.size = size
        self._source = _Hashing(file)

    def chunks(self) -> Iterator[bytes]:
        """Its content, a piece at a time."""
        return iter(partial(self._source.read, 2**20), b"")

    def digest(self) -> Digest:
        """Of what was read, and of the rest, which is skipped."""
        for _ in self.chunks():
            pass
        return Digest(bytes=self.size, sha256=self._source.sha.hexdigest())


class _Hashing:
    """A file whose bytes are hashed as they are read."""

    def __init__(self, file: IO[bytes]) -> None:
        self.sha = hashlib.sha256()
        self._file = file

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self.sha.update(data)
        return data


@contextmanager
def writing(path: Path) -> Iterator[Writer]:
    """Give an archive to fill and then to `seal`; it gets its name when the block ends without an error.

    Raises:
        BackupError: The name ends in none of `SUFFIXES`, or the file exists.
    """
    suffix = _suffix(path)
    if path.exists():
        raise BackupError(f"{path} exists already; remove it or name another file")
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("xb") as file:
            with _tar(file, suffix, "w") as tar:
                writer = Writer(tar)
                writer.add(FORMAT, Format().model_dump_json().encode())
                yield writer
            file.flush()
            os.fsync(file.fileno())
        partial.rename(path)
    finally:
        partial.unlink(missing_ok=True)


def seal(writer: Writer, manifest: bytes) -> None:
    """Write the manifest and its digest; nothing may follow."""
    writer.add(MANIFEST, manifest)
    writer.add(SEAL, f"{hashlib.sha256(manifest).hexdigest()}  {MANIFEST}\n".encode())


@contextmanager
def reading(path: Path, watch: Callable[[int], None] = lambda _: None) -> Iterator[Iterator[Member]]:
    """Open an archive and give its members in their order.

    Args:
        path: The file.
        watch: Told the position in the file at each member.

    Raises:
        BackupError: No archive, or a damaged one.
    """
    try:
        with path.open("rb") as file, _tar(file, _suffix(path), "r") as tar:
            yield _members(path, tar, lambda: watch(file.tell()))
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise BackupError(f"{path} is damaged or was cut ({error}); fetch it again") from error


def verify(path: Path, watch: Callable[[int], None] = lambda _: None) -> tuple[bytes, Mapping[str, Digest]]:
    """Read a whole archive, and return its manifest and what was found before it; nothing is written.

    Raises:
        BackupError: It is no backup, of another version, or has lost its end.
    """
    found: dict[str, Digest] = {}
    last: dict[str, bytes] = {}
    with reading(path, watch) as members:
        for member in members:
            if not found and not (member.name == FORMAT and _is_format(member)):
                raise BackupError(f"{path} is no backup of dupmae-search that this release reads")
            if member.name in found or last.keys() >= {MANIFEST, SEAL}:
                raise BackupError(f"{path} holds {member.name} where nothing is expected; it is no backup of ours")
            if member.name in (MANIFEST, SEAL) and member.size <= MAX_MANIFEST_BYTES:
                last[member.name] = b"".join(member.chunks())
            else:
                found[member.name] = member.digest()
    if last.keys() < {MANIFEST, SEAL}:
        raise BackupError(f"{path} ends before its manifest: it was cut; fetch it again")
    if hashlib.sha256(last[MANIFEST]).hexdigest().encode() != last[SEAL][:64]:
        raise BackupError(f"{path} is damaged: {MANIFEST} is not what was written; fetch it again")
    return last[MANIFEST], found


def _members(path: Path, tar: tarfile.TarFile, watch: Callable[[], None]) -> Iterator[Member]:
    for info in tar:
        file = tar.extractfile(info) if info.isfile() else None
        if file is None:
            raise BackupError(f"{path} holds {info.name}, which is no plain file; it is no backup of ours")
        yield Member(info.name, info.size, file)
        watch()


def _is_format(member: Member) -> bool:
    if member.size > MAX_MANIFEST_BYTES:
        return False
    try:
        Format.model_validate_json(b"".join(member.chunks()))
    except ValidationError:
        return False
    return True


def _suffix(path: Path) -> str:
    for suffix in SUFFIXES:
        if path.name.endswith(suffix):
            return suffix
    raise BackupError(f"{path}: the name of a backup ends in {', '.join(SUFFIXES)}")


@contextmanager
def _tar(file: IO[bytes], suffix: str, mode: Literal["r", "w"]) -> Iterator[tarfile.TarFile]:
    if suffix != ".tar.zst":
        with tarfile.open(fileobj=file, mode=_MODES[suffix, mode]) as tar:
            yield tar
        return
    zstandard = _zstandard()
    packer = zstandard.ZstdDecompressor().stream_reader if mode == "r" else zstandard.ZstdCompressor().stream_writer
    try:
        with packer(file, closefd=False) as plain, tarfile.open(fileobj=plain, mode=_MODES[".tar", mode]) as tar:
            yield tar
    except zstandard.ZstdError as error:
        raise EOFError(str(error)) from error


def _zstandard() -> Any:
    try:
        import zstandard
    except ModuleNotFoundError as error:
        raise BackupError(".tar.zst needs an extra: pip install 'dupmae-search[zstd]'; or name it .tar.gz") from error
    return zstandard
