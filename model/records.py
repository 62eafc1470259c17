"""Files of training records, larger than memory if they like: streamed, read at random, or rewritten.

Mining and scoring take hours over such a file, so what they write is kept batch by batch: a run that was killed at any
moment goes on where it was and ends with the same bytes.
"""

import hashlib
import json
import os
import tempfile
import weakref
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import IO, Any, NamedTuple, overload

import portalocker
from portalocker import LockFlags
from pydantic import JsonValue

from model.example import Example, from_line, to_line
from model.lines import PACKED, SourceError, read_chunks, read_lines, split_lines

__all__ = ["Example", "Records", "Rewritten", "read_examples", "rewrite", "to_line"]


def read_examples(path: Path, skipped: Counter[str] | None = None) -> Iterator[Example]:
    """The records of a file, streamed.

    What training cannot use is left out and counted: blank texts, texts that a record repeats (also a negative that is
    one of its positives), and records that are left without a query or without a positive.

    Args:
        path: JSON lines, plain or packed. Empty lines mean nothing.
        skipped: Gets the number of things left out, by what they are.

    Raises:
        SourceError: The file is missing or damaged, or a line is no such record.
    """
    counts = Counter[str]() if skipped is None else skipped
    for number, line in enumerate(read_lines(path), 1):
        if example := from_line(line, f"{path}:{number}", counts):
            yield example


class Records(Sequence[Example]):
    """The records of a file of any size by position, in 8 bytes of memory each.

    Every line is checked at construction, in one pass, so that no bad one ends a run hours later. A packed file is
    unpacked into a temporary one, which goes with the object or with the process. Safe to use from several threads and
    in forked processes.

    Attributes:
        path: The file.
        digest: SHA-256 of its unpacked lines, in hexadecimal.
        close: Closes it; done at the latest when the object goes.
        skipped: What was left out, and how often; see `read_examples`.
    """

    def __init__(self, path: Path) -> None:
        """Read and check the file.

        Raises:
            SourceError: The file is missing or damaged, or a line is no record.
        """
        self.path = path
        self._file = _unpacked(path) if path.suffix in PACKED else _opened(path)
        self.close = weakref.finalize(self, self._file.close)
        self.skipped = Counter[str]()
        self._starts = array("q")
        self.digest = self._scan()

    def _scan(self) -> str:
        """Check every line, note where the good ones start and where the last one ends, and return the digest."""
        digest, start = hashlib.sha256(), 0
        for number, line in enumerate(split_lines(read_chunks(self._file)), 1):
            if from_line(line, f"{self.path}:{number}", self.skipped):
                self._starts.append(start)
            digest.update(line + b"\n")
            start += len(line) + 1
        self._starts.append(start)
        return digest.hexdigest()

    def __enter__(self) -> "Records":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._starts) - 1

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> list[Example]: ...
    def __getitem__(self, index: int | slice) -> Example | list[Example]:
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        position = range(len(self))[index]
        start, end = self._starts[position : position + 2]
        line = os.pread(self._file.fileno(), end - start, start).partition(b"\n")[0]  # left-out lines may follow
        example = from_line(line, f"{self.path}, byte {start}", Counter())
        if example is None:
            raise SourceError(f"{self.path}, byte {start}: changed while it was in use; start again")
        return example


class Rewritten(NamedTuple):
    """Examples in the new file, and how many of them an earlier, broken run had left."""

    written: int
    resumed: int


def rewrite(
    examples: Iterable[Example],
    out: Path,
    step: Callable[[list[Example]], Iterable[Example]],
    *,
    batch: int,
    made_by: Mapping[str, JsonValue],
    restart: bool = False,
) -> Rewritten:
    """Write `step` of the examples, batch by batch, to a file that appears when it is whole.

    Until then they stand in `OUT.partial`, and `OUT.partial.json` says what they are made by. The same call after a
    crash keeps the whole batches found there and goes on: each batch is one of an unbroken run, and the file is byte by
    byte the same if `step` is deterministic.

    Args:
        examples: In the same order each time.
        out: A new file, plain JSON lines.
        step: Gives one example for each of a batch, in order.
        batch: Examples a step; after each the file is on the disk.
        made_by: What the result depends on: digest of the source, options.
        restart: Begin anew, whatever an unfinished run or a finished one has left.

    Raises:
        SourceError: `out` has the name of a packed file.
        FileExistsError: `out` is there already, or an unfinished run that was made by something else.
        BlockingIOError: Another process is writing it.
    """
    _check_name(out, restart=restart)
    out.parent.mkdir(parents=True, exist_ok=True)
    partial, note = (out.with_name(out.name + ending) for ending in (".partial", ".partial.json"))
    with note.open("a+", encoding="utf-8") as facts:
        _lock(facts, partial)
        _claim(facts, partial, {"batch": batch, **made_by}, restart=restart)
        with partial.open("a+b") as lines:
            resumed = written = _cut(lines, batch)
            rest = islice(examples, resumed, None)
            while chunk := list(islice(rest, batch)):
                done = list(step(chunk))
                assert len(done) == len(chunk), "a step gives one example for each"
                lines.write("".join(to_line(example) + "\n" for example in done).encode())
                _sync(lines)
                written += len(chunk)
        partial.replace(out)
    note.unlink(missing_ok=True)
    return Rewritten(written, resumed)


def _lock(facts: IO[str], partial: Path) -> None:
    try:
        portalocker.lock(facts, LockFlags.EXCLUSIVE | LockFlags.NON_BLOCKING)
    except portalocker.AlreadyLocked as error:
        raise BlockingIOError(f"{partial}: another process is writing it; wait for it or stop it") from error


def _check_name(out: Path, *, restart: bool) -> None:
    if out.suffix in PACKED:
        raise SourceError(f"{out}: records are written plain, to go on after a crash; name it {out.with_suffix('')}")
    if out.exists() and not restart:
        raise FileExistsError(f"{out} exists already; remove it, name another file, or --restart to write it anew")


def _claim(facts: IO[str], partial: Path, made_by: Mapping[str, JsonValue], *, restart: bool) -> None:
    """Make the partial file ours: go on with one of the same origin, or note the origin of a new one.

    The note is on the disk before the partial file exists, so one that is cut or empty has no partial file beside it.
    """
    wanted = json.loads(json.dumps(made_by))
    if partial.exists() and not restart:
        found = _origin(facts)
        if found != wanted:
            keys = [key for key in {**found, **wanted} if found.get(key) != wanted.get(key)]
            differences = "; ".join(f"{key} was {found.get(key)!r}, is {wanted.get(key)!r}" for key in keys)
            raise FileExistsError(
                f"{partial} is an unfinished run that differs: {differences}. "
                "Give what it was given to go on, or --restart to begin anew"
            )
        return
    partial.unlink(missing_ok=True)
    facts.truncate(0)
    json.dump(wanted, facts)
    _sync(facts)


def _origin(facts: IO[str]) -> dict[str, JsonValue]:
    """What the note says; nothing where it cannot be read, which then differs from anything wanted."""
    facts.seek(0)
    try:
        return dict(json.load(facts))
    except ValueError:
        return {}


def _cut(lines: IO[bytes], batch: int) -> int:
    """Drop what follows the last whole batch, a torn line among it, and return the number of examples left."""
    lines.seek(0)
    kept = end = position = 0
    for number, line in enumerate(lines, 1):
        position += len(line)
        if number % batch == 0 and line.endswith(b"\n"):
            kept, end = number, position
    lines.truncate(end)
    return kept


def _sync(file: IO[Any]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _opened(path: Path) -> IO[bytes]:
    try:
        return path.open("rb")
    except OSError as error:
        raise SourceError(f"{path}: {error.strerror}") from error


def _unpacked(path: Path) -> IO[bytes]:
    """The lines of a packed file in a temporary one, which has no name and ends when it is closed."""
    file = tempfile.TemporaryFile()  # noqa: SIM115 - it outlives this function
    try:
        for line in read_lines(path):
            file.write(line + b"\n")
        file.seek(0)
    except OSError as error:
        file.close()
        raise SourceError(
            f"{path}: cannot be unpacked in {tempfile.gettempdir()} ({error.strerror}); set TMPDIR to a roomier folder"
        ) from error
    except SourceError:
        file.close()
        raise
    return file
