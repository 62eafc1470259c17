"""Which documents a build holds already: what it goes on from after a kill, and what its counts are made of.

An SQLite file beside the indexes, one a build. A document is written here only after the store has said that its points
are durable, and taken out before they are changed or removed. So after a crash the store may hold more than the ledger
says, never less or something else: equal counts mean equal content. Points are written again under the same ids. Ids
that one pass over the sources has seen are kept in a scratch table on disk, so that memory does not grow with them.
"""

import hashlib
import shutil
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, NamedTuple, Self

import portalocker
from portalocker import LockFlags

from indexer.store import BuildLocked, StoreError

_SCHEMA = """
CREATE TABLE IF NOT EXISTS plan (digest TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS documents (
    id TEXT PRIMARY KEY, content_hash TEXT NOT NULL, passages INTEGER NOT NULL, truncated INTEGER NOT NULL,
    unchanged INTEGER NOT NULL, reason TEXT NOT NULL
) WITHOUT ROWID;
"""
_SCRATCH = """
PRAGMA temp_store=FILE; CREATE TEMP TABLE seen (id BLOB PRIMARY KEY) WITHOUT ROWID;
PRAGMA temp.journal_mode=OFF; PRAGMA temp.synchronous=OFF;
"""
_LOOKS, _LOOK_S = 5, 0.05
_AT_ONCE = 500
"""Values in one SQL statement, which SQLite bounds."""


class Entry(NamedTuple):
    """A document of a build.

    Attributes:
        id: The document's.
        content_hash: Of what was indexed.
        passages: Points it has; 0 when it has no vector.
        truncated: Those of which the model saw less than the whole.
        unchanged: Whether its vectors were taken over from an older build.
        reason: Why it has no vector.
    """

    id: str
    content_hash: str
    passages: int
    truncated: int = 0
    unchanged: bool = False
    reason: str = ""


class Totals(NamedTuple):
    """Sums over a ledger; `documents` are those with a vector, `refused` those without."""

    documents: int
    unchanged: int
    refused: int
    passages: int
    truncated: int


class Ledger:
    """The open ledger of one build. One thread reads (`seen`, `known`) while another writes (`add`)."""

    def __init__(self, path: Path, plan: str) -> None:
        """Open or begin a ledger.

        Args:
            path: The file; folders are made.
            plan: Digest of everything that decides what the build will hold.

        Raises:
            BuildLocked: Another process has it open.
            StoreError: It belongs to another plan, is damaged, or cannot be written.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._lock = path.with_suffix(".lock").open("a")
        try:
            _take(self._lock)
        except portalocker.AlreadyLocked as error:
            self._lock.close()
            raise BuildLocked(
                f"Build {path.stem} is being made by another process; wait for it, or stop it."
            ) from error
        try:
            with self._naming():
                self._writing = sqlite3.connect(path, check_same_thread=False)
                self._writing.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;" + _SCHEMA)
                found = self._writing.execute("SELECT digest FROM plan").fetchone()
                if not found:
                    with self._writing:
                        self._writing.execute("INSERT INTO plan VALUES (?)", (plan,))
                self._reading = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
                self._reading.executescript(_SCRATCH)
            if found and found[0] != plan:
                self.close()
                raise StoreError(
                    f"{path} belongs to a build of other sources or options; give --restart to begin anew."
                )
        except BaseException:
            self._lock.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def begin_pass(self) -> None:
        """Forget which ids were seen: the sources are read from the beginning."""
        with self._naming():
            self._reading.execute("DELETE FROM seen")

    def first_time(self, id: str) -> bool:
        """Whether this pass sees the id for the first time; from now on it has."""
        with self._naming():
            return self._reading.execute("INSERT OR IGNORE INTO seen VALUES (?)", (_key(id),)).rowcount == 1

    def known(self, ids: Sequence[str]) -> dict[str, Entry]:
        """The entries of those ids that have one."""
        found: dict[str, Entry] = {}
        with self._naming():
            for some in _groups(ids):
                marks = ",".join("?" * len(some))
                rows = self._reading.execute(f"SELECT * FROM documents WHERE id IN ({marks})", some)
                found |= {row[0]: _entry(row) for row in rows}
        return found

    def add(self, entries: Iterable[Entry]) -> None:
        """Write entries down, in place of those of the same ids; durable when it returns."""
        with self._naming(), self._writing:
            self._writing.executemany("INSERT OR REPLACE INTO documents VALUES (?, ?, ?, ?, ?, ?)", entries)

    def forget(self, ids: Iterable[str]) -> None:
        """Remove entries, so that the next pass indexes those documents again."""
        with self._naming(), self._writing:
            self._writing.executemany("DELETE FROM documents WHERE id = ?", [(id,) for id in ids])

    def vanished(self) -> Iterator[list[Entry]]:
        """Entries whose document was not seen in this pass, some at a time."""
        self._reading.create_function("digest", 1, _key, deterministic=True)
        with self._naming():
            rows = self._reading.execute("SELECT * FROM documents WHERE digest(id) NOT IN (SELECT id FROM seen)")
            while some := rows.fetchmany(_AT_ONCE):
                yield [_entry(row) for row in some]

    def entries(self) -> Iterator[Entry]:
        """All entries in order of id, streamed."""
        with self._naming():
            for row in self._reading.execute("SELECT * FROM documents ORDER BY id"):
                yield _entry(row)

    def expect(self, points: Iterable[tuple[str, str]]) -> None:
        """Begin to compare a store with this ledger: the points it should hold, each with its document's id."""
        with self._naming():
            self._reading.executescript(
                "DROP TABLE IF EXISTS temp.expected; "
                "CREATE TEMP TABLE expected (point TEXT PRIMARY KEY, document TEXT NOT NULL) WITHOUT ROWID; BEGIN;"
            )
            self._reading.executemany("INSERT INTO expected VALUES (?, ?)", points)
            self._reading.execute("COMMIT")

    def found(self, point: str) -> bool:
        """Tick off a point that the store holds; False when it should not."""
        with self._naming():
            return self._reading.execute("DELETE FROM expected WHERE point = ?", (point,)).rowcount == 1

    def lacking(self) -> list[str]:
        """Documents of which a point was expected and not found, in order."""
        with self._naming():
            rows = self._reading.execute("SELECT DISTINCT document FROM expected ORDER BY document")
            return [str(row[0]) for row in rows]

    def totals(self) -> Totals:
        """Sums over all entries."""
        with self._naming():
            return Totals(
                *self._writing.execute(
                    "SELECT count(*) FILTER (WHERE passages), count(*) FILTER (WHERE unchanged), "
                    "count(*) FILTER (WHERE NOT passages), ifnull(sum(passages), 0), ifnull(sum(truncated), 0) "
                    "FROM documents"
                ).fetchone()
            )

    def check_room(self, least: int) -> None:
        """Raise StoreError when the disk has less than `least` bytes left."""
        if (free := shutil.disk_usage(self._path.parent).free) < least:
            raise StoreError(
                f"{self._path.parent} has {free / 2**20:,.0f} MiB left, and a build stops at {least / 2**20:,.0f}, "
                "since a full disk damages an index; make room, and give the same command again."
            )

    def close(self) -> None:
        """Release the file; harmless when done already."""
        self._reading.close()
        self._writing.close()
        self._lock.close()

    @contextmanager
    def _naming(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StoreError(
                f"{self._path}: {error}. Nothing that is published changed; give the disk room or its rights back, and "
                "the same command again."
            ) from error


def ledger_path(data: Path, index: str, build_id: str) -> Path:
    """Where the ledger of a build is."""
    return data / "ledgers" / index / f"{build_id}.sqlite"


def plan_of(path: Path) -> str | None:
    """The plan of a ledger that nobody needs to have open; None where there is none."""
    if not path.exists():
        return None
    try:
        connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        try:
            found = connection.execute("SELECT digest FROM plan").fetchone()
        finally:
            connection.close()
    except sqlite3.Error:  # killed before it had its tables: nothing is in it
        return None
    return str(found[0]) if found else None


def _take(lock: IO[str]) -> None:
    """Take a lock, which somebody who only looks may hold for a moment."""
    for _ in range(_LOOKS):
        with suppress(portalocker.AlreadyLocked):
            return portalocker.lock(lock, LockFlags.EXCLUSIVE | LockFlags.NON_BLOCKING)
        time.sleep(_LOOK_S)
    portalocker.lock(lock, LockFlags.EXCLUSIVE | LockFlags.NON_BLOCKING)


def is_open(path: Path) -> bool:
    """Whether a process on this machine has the ledger open, and so is making its build."""
    lock = path.with_suffix(".lock")
    if not lock.exists():
        return False
    with lock.open("a") as file:
        try:
            portalocker.lock(file, LockFlags.EXCLUSIVE | LockFlags.NON_BLOCKING)
        except portalocker.AlreadyLocked:
            return True
    return False


def remove_ledger(path: Path) -> None:
    """Delete a ledger with everything SQLite left beside it."""
    for suffix in (".sqlite-wal", ".sqlite-shm", ".sqlite", ".lock"):
        path.with_suffix(suffix).unlink(missing_ok=True)


def _key(id: str) -> bytes:
    return hashlib.blake2b(id.encode(), digest_size=16).digest()


def _entry(row: tuple[str, str, int, int, int, str]) -> Entry:
    return Entry(*row[:4], bool(row[4]), row[5])


def _groups(values: Sequence[str]) -> Iterator[Sequence[str]]:
    return (values[at : at + _AT_ONCE] for at in range(0, len(values), _AT_ONCE))
