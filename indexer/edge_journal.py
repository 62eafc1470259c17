"""The journal of an embedded index: a file of lines, each with its length and checksum.

    3f1c09aa 61 {"delete": "gull", "position": 7}

A line is on the disk before `append` returns. What a power failure leaves of the last one is not a line, was never
acknowledged, and is cut off by the next writer. Damage anywhere else is an error. Readers take no lock.
"""

import json
import os
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

import portalocker
from pydantic import JsonValue

from indexer.journal import Write
from indexer.store import StoreError
from model.atomic import sync

TAIL_BYTES = 2**16


class Line(NamedTuple):
    """A whole line: what it says, and where the next one begins."""

    record: dict[str, JsonValue]
    position: int
    end: int


class EdgeJournal:
    """The journal of one index. Several processes may write to it, one after the other."""

    unsettled = 0  # one process at a time writes to a build

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = Line({}, 0, 0)

    def append(self, writes: Sequence[Write]) -> int:
        """See `Journal.append`."""
        try:
            is_new = not self._path.exists()
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a+b") as file:
                portalocker.lock(file, portalocker.LockFlags.EXCLUSIVE)
                last = self._last(file)
                file.truncate(last.end)
                positions = range(last.position + 1, last.position + 1 + len(writes))
                self._write(file, last.end, b"".join(map(_line, positions, writes)))
            if is_new:
                sync(self._path.parent)
        except OSError as error:
            raise StoreError(f"{self._path} cannot be written ({error.strerror}); the write is not kept.") from error
        return last.position + len(writes)

    def since(self, position: int) -> Iterator[tuple[int, Write]]:
        """See `Journal.since`."""
        begin = self._read if self._read.position <= position else Line({}, 0, 0)
        with suppress(FileNotFoundError), self._path.open("rb") as file:
            for line in self._lines(file, begin.end):
                if line.position > position:
                    yield line.position, Write.from_record(line.record)
                self._read = Line({}, line.position, line.end)

    def position(self) -> int:
        """See `Journal.position`."""
        try:
            with self._path.open("rb") as file:
                return self._last(file).position
        except FileNotFoundError:
            return 0

    def _write(self, file: BinaryIO, end: int, lines: bytes) -> None:
        try:
            file.write(lines)
            file.flush()
            os.fsync(file.fileno())
        except OSError:
            with suppress(OSError):  # the disk is full or failing: what is left of it is cut off by the next writer
                os.ftruncate(file.fileno(), end)
            raise

    def _last(self, file: BinaryIO) -> Line:
        """The last whole line; one at position 0 when there is none."""
        size, reach = file.seek(0, os.SEEK_END), TAIL_BYTES
        while size:
            begin = file.seek(max(0, size - reach))
            tail = file.read(size - begin)
            if begin == 0 or tail.count(b"\n") >= 2:
                break
            reach *= 2
        else:
            return Line({}, 0, 0)
        start = tail.rfind(b"\n", 0, -1) + 1
        if last := _parse(tail[start:], begin + start):
            return last
        return next(iter(deque(self._lines(file, 0), maxlen=1)), Line({}, 0, 0))

    def _lines(self, file: BinaryIO, begin: int) -> Iterator[Line]:
        """The whole lines from a byte on; StoreError when one is damaged that is not the last."""
        file.seek(begin)
        for text in file:
            line = _parse(text, begin)
            if line is None:
                if text.endswith(b"\n"):  # else it is the end, perhaps of an append that is under way
                    self._check_torn(file, begin)
                return
            yield line
            begin = line.end

    def _check_torn(self, file: BinaryIO, begin: int) -> None:
        """A line that is none may be what is left of the last append, but not stand before another."""
        if any(_parse(text, 0) for text in file):
            raise StoreError(
                f"{self._path} is damaged at byte {begin}, before other writes. Restore the file from a backup; "
                "without it the writes from there on are lost."
            )


def _line(position: int, write: Write) -> bytes:
    body = json.dumps({**write.record(), "position": position}, ensure_ascii=False).encode()
    return b"%08x %d %s\n" % (zlib.crc32(body), len(body), body)


def _parse(text: bytes, begin: int) -> Line | None:
    """The line, or None when it is not whole."""
    try:
        crc, length, body = text.removesuffix(b"\n").split(b" ", 2)
        whole = text.endswith(b"\n") and len(body) == int(length) and zlib.crc32(body) == int(crc, 16)
    except ValueError:
        return None
    if not whole:
        return None
    record = json.loads(body)
    return Line(record, record["position"], begin + len(text))
