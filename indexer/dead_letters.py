"""Where bad records go: a file to repair and read again, and a limit so that no index is made of a broken export."""

import json
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Self, TextIO

from indexer.documents import BadRecord
from model.lines import SourceError


class TooManyBadRecords(SourceError):
    """More bad records than the limit; the message names the limit, the latest record and the file of all."""


class DeadLetters:
    """Counts bad records and writes each as one JSON line: source, line, reason, record.

    Attributes:
        count: Bad records so far.
    """

    def __init__(self, path: Path | None, limit: int) -> None:
        """Nothing is written before the first record.

        Args:
            path: The file, replaced if it exists; None only counts.
            limit: Records that are put up with.
        """
        self.count = 0
        self._path = path
        self._limit = limit
        self._file: TextIO | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def add(self, record: BadRecord) -> None:
        """Write one record down.

        Raises:
            TooManyBadRecords: This was one more than the limit.
        """
        self.count += 1
        if self._path is not None:
            print(json.dumps(asdict(record)), file=self._open(self._path), flush=True)
        if self.count > self._limit:
            where = f" (all are in {self._path})" if self._path else ""
            raise TooManyBadRecords(
                f"more than {self._limit} bad records, the last being {record.place}: {record.reason}{where}; "
                "repair them or raise the limit (--max-bad)"
            )

    def _open(self, path: Path) -> TextIO:
        if self._file is None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._stack.enter_context(path.open("w", encoding="utf-8"))
        return self._file
