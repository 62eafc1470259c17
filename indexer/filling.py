"""The inside of a build: documents are read, encoded and written at the same time, in windows.

A window is many enough documents for the encoder to batch texts of like length, few enough to keep memory bounded and
progress visible. A thread reads ahead and looks up what is done already; the encoder works in another thread or in
other processes; this one writes. What was written counts when the store has flushed and the ledger has it.
"""

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from indexer.dead_letters import DeadLetters
from indexer.documents import BadRecord, Document
from indexer.encoders import Encoders
from indexer.encoding import Encoded
from indexer.ledger import Entry, Ledger
from indexer.patience import patiently
from indexer.pipeline import ahead, in_flight
from indexer.points import point_id
from indexer.reuse import unchanged
from indexer.store import Point, State, Store, StoreError

WINDOW_DOCUMENTS = 256
WINDOW_CHARACTERS = 2**18
WINDOWS_AHEAD = 4
FLUSH_S = 2.0
"""Seconds between flushes: what a kill may cost."""
UPSERT_POINTS = 1000
"""Points written or removed in one call of a store."""
ROOM_BYTES = 256 * 2**20
"""Free space below which nothing more is written: engines that map their files do not survive a full disk."""


@dataclass(slots=True)
class Tally:
    """How far a build is; one object, changed in place and given to the progress callback.

    Attributes:
        stage: What is being done.
        total: Records there are to read, if that is known.
        read: Records read.
        documents: Documents that the build holds.
        encoded: Those that this run encoded.
        unchanged: Those copied from an older build.
        resumed: Those that were done before this run.
        passages: Points of all documents.
        truncated: Points of which the model saw less than the whole.
        bad: Bad records.
    """

    stage: State = "reading"
    total: int | None = None
    read: int = 0
    documents: int = 0
    encoded: int = 0
    unchanged: int = 0
    resumed: int = 0
    passages: int = 0
    truncated: int = 0
    bad: int = 0


@dataclass(slots=True)
class _Window:
    """Some records after one another, and what is known of them before anything is encoded.

    Attributes:
        read: How many records they were.
        bad: Those that became no document, or one whose id was there before.
        done: Entries of documents that this build holds as they are.
        refused: Documents that are known to have no vector, with the reason.
        copied: Documents with the points that an older build holds.
        new: Documents to encode.
        stale: What this build holds of documents that have changed since.
    """

    read: int = 0
    bad: list[BadRecord] = field(default_factory=list)
    done: list[Entry] = field(default_factory=list)
    refused: list[tuple[Document, str]] = field(default_factory=list)
    copied: list[tuple[Document, list[Point]]] = field(default_factory=list)
    new: list[Document] = field(default_factory=list)
    stale: dict[str, Entry] = field(default_factory=dict)


class _Submitted(NamedTuple):
    window: _Window
    encoded: "Future[Encoded] | None"


class Filling:
    """Fills one build."""

    def __init__(
        self,
        store: Store,
        ledger: Ledger,
        dead: DeadLetters,
        tally: Tally,
        *,
        base: Store | None,
        patience_s: float,
        watch: Callable[[Tally], None],
        save: Callable[[], None],
        optimize: Callable[[], None],
    ) -> None:
        """Prepare to fill `store`.

        Args:
            store: The build, open for writing.
            ledger: What it holds.
            dead: Gets bad records.
            tally: Kept up to date.
            base: An older build to copy from.
            patience_s: Seconds that the store may be away.
            watch: Given the tally after every window.
            save: Called when more has become durable.
            optimize: Called when the store is ripe for it.
        """
        self._watch, self._save, self._optimize = watch, save, optimize
        self._store, self._ledger, self._dead, self._tally, self._base = store, ledger, dead, tally, base
        self._patiently = partial(patiently, for_s=patience_s)
        self._sha = hashlib.sha256()
        self._written: list[Entry] = []
        self._flushed = time.monotonic()

    def run(self, records: Iterable[Document | BadRecord], encoders: Encoders) -> str:
        """Bring the build to what the records say, and return their digest.

        Args:
            records: From the beginning, whatever was done before.
            encoders: Encode those that are new.
        """
        self._encoders = encoders
        self._ledger.begin_pass()
        try:
            with ahead(windows(records), self._looked_up, WINDOWS_AHEAD) as looked_up:
                for submitted in in_flight(looked_up, partial(_submit, encoders), encoders.at_once + 1):
                    self._write(submitted)
                    self._watch(self._tally)
                    if time.monotonic() - self._flushed > FLUSH_S:
                        self._flush()
        except BaseException:
            with suppress(StoreError, OSError):  # the failure is told, not this one; nobody waits for a store now
                self._store.flush()
                self._ledger.add(self._written)  # spares encoding it again
            raise
        self._flush()
        if self._tally.documents:  # sources that gave nothing are more likely broken than empty
            self._remove_vanished()
        return self._sha.hexdigest()

    def _looked_up(self, records: list[Document | BadRecord]) -> _Window:
        """In the thread that reads."""
        window, documents = _Window(read=len(records)), list[Document]()
        for record in records:
            if isinstance(record, BadRecord):
                window.bad.append(record)
            elif self._ledger.first_time(record.id):
                documents.append(record)
                self._sha.update(digest_line(record))
            else:
                window.bad.append(record.refused(f"id {record.id!r} occurs twice"))
        known = self._ledger.known([document.id for document in documents])
        fresh = list[Document]()
        for document in documents:
            entry = known.get(document.id)
            if entry is None or entry.content_hash != document.content_hash:
                fresh.append(document)
                window.stale |= {document.id: entry} if entry else {}
            elif entry.reason:
                window.refused.append((document, entry.reason))
            else:
                window.done.append(entry)
        found = self._patiently(lambda: unchanged(base, fresh)) if (base := self._base) and fresh else {}
        window.copied = [(document, found[document.id]) for document in fresh if document.id in found]
        window.new = [document for document in fresh if document.id not in found]
        return window

    def _write(self, submitted: _Submitted) -> None:
        window, tally = submitted.window, self._tally
        encoded = self._encoders.result(submitted.encoded) if submitted.encoded else Encoded([], [])
        self._ledger.forget(window.stale)  # first: the ledger must never say what the store no longer holds
        tally.read += window.read
        for entry in window.done:
            self._count(entry)
            tally.resumed += 1
        points, entries = list[Point](), list[Entry]()
        for document, copied in window.copied:
            points += copied
            truncated = int(str(copied[0].payload.get("truncated", 0)))
            entries.append(Entry(document.id, document.content_hash, len(copied), truncated, unchanged=True))
        for each in encoded.documents:
            points += each.points
            document = each.document
            entries.append(Entry(document.id, document.content_hash, len(each.passages), each.truncated))
        refusals = [Entry(document.id, document.content_hash, 0, reason=why) for document, why in encoded.refused]
        self._store_points(points, _left_over([*entries, *refusals], window.stale))
        tally.encoded += len(encoded.documents)
        for entry in entries:
            self._count(entry)
        self._written += [*entries, *refusals]
        for record in (*window.bad, *(document.refused(why) for document, why in (*window.refused, *encoded.refused))):
            self._dead.add(record)
        tally.bad = self._dead.count

    def _store_points(self, points: list[Point], left_over: list[str]) -> None:
        for at in range(0, len(points), UPSERT_POINTS):
            self._patiently(partial(self._store.upsert, points[at : at + UPSERT_POINTS]))
        for at in range(0, len(left_over), UPSERT_POINTS):
            self._patiently(partial(self._store.delete, left_over[at : at + UPSERT_POINTS]))

    def _count(self, entry: Entry) -> None:
        self._tally.documents += 1
        self._tally.unchanged += entry.unchanged
        self._tally.passages += entry.passages
        self._tally.truncated += entry.truncated

    def _flush(self) -> None:
        """Make what was written durable, first in the store and then in the ledger."""
        self._ledger.check_room(ROOM_BYTES)
        self._patiently(self._store.flush)
        self._ledger.add(self._written)
        self._written = []
        self._save()
        if self._patiently(self._store.ripe):
            self._optimize()
        self._flushed = time.monotonic()

    def _remove_vanished(self) -> None:
        """Remove what an earlier run wrote of documents that are no longer in the sources."""
        for vanished in self._ledger.vanished():
            self._ledger.forget(entry.id for entry in vanished)
            self._store_points(
                [], [point_id(entry.id, number) for entry in vanished for number in range(entry.passages)]
            )
        self._patiently(self._store.flush)


def windows(records: Iterable[Document | BadRecord]) -> Iterator[list[Document | BadRecord]]:
    """Consecutive records, `WINDOW_DOCUMENTS` or at least `WINDOW_CHARACTERS` at a time."""
    window: list[Document | BadRecord] = []
    characters = 0
    for record in records:
        window.append(record)
        characters += len(record.passage) if isinstance(record, Document) else len(record.record)
        if len(window) == WINDOW_DOCUMENTS or characters >= WINDOW_CHARACTERS:
            yield window
            window, characters = [], 0
    if window:
        yield window


def digest_line(document: Document) -> bytes:
    """What a document adds to the digest of its source."""
    return f"{document.id}\0{document.content_hash}\n".encode()


def _submit(encoders: Encoders, window: _Window) -> _Submitted:
    return _Submitted(window, encoders.begin(window.new) if window.new else None)


def _left_over(entries: Iterable[Entry], stale: dict[str, Entry]) -> list[str]:
    """Points of documents that have fewer passages than before."""
    return [
        point_id(entry.id, number)
        for entry in entries
        if entry.id in stale
        for number in range(entry.passages, stale[entry.id].passages)
    ]
