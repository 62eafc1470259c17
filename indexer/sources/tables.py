"""Tables in text: CSV with a header, TSV with or without one.

A row of CSV may go over several lines. Where its quotes are wrong nobody can tell where it ends, so reading goes on
with the line after the one it began on: a quote that is not closed costs its row, never the rest of the file.
"""

import codecs
import csv
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, Self

from pydantic import JsonValue

from indexer.documents import BadRecord, Document, is_record
from indexer.sources.mapping import Columns, check_columns, make_document
from model.lines import MAX_LINE_BYTES, SourceError, parse_object, reason, too_long

_HEADERLESS = {2: ("id", "text"), 4: ("id", "url", "title", "text")}
"""MS MARCO's passages, and its documents."""


class Row(NamedTuple):
    """A row, and the lines it stood on; cells that could not be told apart are the error that says why."""

    line: int
    raw: bytes
    cells: list[str] | Exception

    def document(self, header: Sequence[str], columns: Columns, name: str) -> Document | BadRecord:
        """What the row becomes."""
        try:
            if isinstance(self.cells, Exception):
                raise self.cells
            return make_document(_record(header, self.cells), columns, name, self.line)
        except (ValueError, RecursionError, csv.Error) as error:
            return BadRecord(name, self.line, reason(error), self.raw.decode("utf-8", "backslashreplace"))


def read_tsv(lines: Iterable[bytes], name: str, columns: Columns) -> Iterator[Document | BadRecord]:
    """Rows of tab-separated values; a quote is a character like any other.

    The first line is a header if it holds the mapped columns, or else a column for the id and one for title or text.
    Without a header two columns are id and text, four are id, url, title and text, and a mapping counts them: `id=1`.

    Raises:
        SourceError: The first line tells of no columns that documents can be made of.
    """
    header: Sequence[str] = ()
    for row in _tsv_rows(lines):
        if header:
            yield row.document(header, columns, name)
            continue
        cells = _header(row, name)
        header = tsv_columns(cells, columns, name)
        if header != cells:
            yield row.document(header, columns, name)


def tsv_columns(cells: list[str], columns: Columns, name: str) -> Sequence[str]:
    """The columns of a table whose first line has these cells: the very cells if it is a header.

    Raises:
        SourceError: As `read_tsv`.
    """
    mapped = [column for names in columns.values() for column in names]
    header: Sequence[str]
    if mapped and all(column.isdigit() for column in mapped):
        header = tuple(str(number) for number in range(1, len(cells) + 1))
    elif mapped or ({"_id", "id"} & set(cells) and {"title", "text", "contents"} & set(cells)):
        header = cells
    elif len(cells) in _HEADERLESS:
        header = _HEADERLESS[len(cells)]
    else:
        raise SourceError(
            f"{name}: {len(cells)} columns and no header with id and text; expected id and text, or id, url, title and "
            "text; or count them: --map id=1 --map text=2"
        )
    check_columns(header, columns, name)
    return header


def read_csv(lines: Iterable[bytes], name: str, columns: Columns) -> Iterator[Document | BadRecord]:
    """Rows of comma-separated values under a header; where that has more semicolons or tabs, those separate.

    A row stands on the line it begins on; a line whose cells are all empty is blank.

    Raises:
        SourceError: A header that documents cannot be made of.
    """
    header: list[str] = []
    for row in _csv_rows(_without_mark(lines)):
        if header:
            yield row.document(header, columns, name)
        else:
            header = [cell or f"column{number}" for number, cell in enumerate(_header(row, name), start=1)]
            check_columns(header, columns, name)


def count_tsv(lines: Iterable[bytes], name: str, columns: Columns) -> int:
    """Rows below the header, if there is one.

    Raises:
        SourceError: As `read_tsv`.
    """
    rows = _tsv_rows(lines)
    first = next(rows, None)
    if first is None:
        return 0
    cells = _header(first, name)
    return (tsv_columns(cells, columns, name) != cells) + sum(1 for _ in rows)


def count_csv(lines: Iterable[bytes]) -> int:
    """Rows below the header, told apart by their quotes alone: exact where those are right."""
    rows, row, quotes = 0, False, 0
    for line in lines:
        row = row or is_record(line)
        quotes += line.count(b'"')
        if row and quotes % 2 == 0:
            rows, row = rows + 1, False
    return max(rows + row - 1, 0)


class _Feed:
    """Lines for `csv.reader`, which keeps those of the row at hand, so that they can be read again.

    Attributes:
        row: Number and bytes of each line of the row.
        error: What is wrong with the text of one of them.
    """

    def __init__(self, lines: Iterable[bytes]) -> None:
        self._lines = enumerate(lines, start=1)
        self._again: deque[tuple[int, bytes]] = deque()
        self._bytes = 0
        self.row: list[tuple[int, bytes]] = []
        self.error: Exception | None = None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        number, line = self._again.popleft() if self._again else next(self._lines)
        self.row.append((number, line))
        self._bytes += len(line)
        if self._bytes > MAX_LINE_BYTES:
            raise ValueError(too_long())
        try:
            return line.decode() + "\n"
        except UnicodeDecodeError as error:
            self.error = self.error or error
            return line.decode("utf-8", "backslashreplace") + "\n"

    def begin_row(self) -> None:
        self.row, self.error, self._bytes = [], None, 0

    def put_back(self, count: int) -> None:
        """Read the last lines of the row again."""
        self._again.extendleft(reversed(self.row[len(self.row) - count :]))
        del self.row[len(self.row) - count :]


def _csv_rows(lines: Iterable[bytes]) -> Iterator[Row]:
    """Rows that are not blank. A field may be as long as a line; the module's own limit is raised to that."""
    csv.field_size_limit(max(csv.field_size_limit(), MAX_LINE_BYTES))
    feed = _Feed(lines)
    delimiter = _delimiter(feed)
    reader = csv.reader(feed, delimiter=delimiter, strict=True)
    while True:
        feed.begin_row()
        try:
            cells: list[str] | Exception = next(reader)
        except StopIteration:
            return
        except (csv.Error, ValueError) as error:
            cells = ValueError("a quote is not closed") if "end of data" in str(error) else error
            feed.put_back(len(feed.row) - 1)
            reader = csv.reader(feed, delimiter=delimiter, strict=True)
        if isinstance(cells, Exception) or len(feed.row) > 1 or any(map(str.strip, cells)):
            yield Row(feed.row[0][0], b"\n".join(line for _, line in feed.row), feed.error or cells)


def _delimiter(feed: _Feed) -> str:
    """What separates most cells of the first line with something in it."""
    for text in feed:
        if text.strip():
            feed.put_back(len(feed.row))
            return max(",;\t", key=text.count)
    return ","


def _tsv_rows(lines: Iterable[bytes]) -> Iterator[Row]:
    for number, line in enumerate(_without_mark(lines), start=1):
        if is_record(line):
            yield Row(number, line, _tsv_cells(line))


def _tsv_cells(line: bytes) -> list[str] | Exception:
    if len(line) > MAX_LINE_BYTES:
        return ValueError(too_long())
    try:
        return line.decode().removesuffix("\r").split("\t")
    except UnicodeDecodeError as error:
        return error


def _without_mark(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Lines without the byte order mark that spreadsheets put before the first."""
    return (line if number else line.removeprefix(codecs.BOM_UTF8) for number, line in enumerate(lines))


def _header(row: Row, name: str) -> list[str]:
    if isinstance(row.cells, Exception):
        raise SourceError(f"{name}, line {row.line}: no header: {reason(row.cells)}")
    return row.cells


def _record(header: Sequence[str], cells: list[str]) -> dict[str, JsonValue]:
    if len(cells) != len(header):
        raise ValueError(f"{len(cells)} cells where there are {len(header)} columns")
    record: dict[str, JsonValue] = dict(zip(header, cells, strict=True))
    if metadata := record.get("metadata"):
        record["metadata"] = parse_object(str(metadata).encode())
    return record
