"""Documents and where they come from: JSON lines, plain or compressed, and folders in the BEIR layout.

Readers stream: one line is in memory, however long the file. What cannot be a document becomes a `BadRecord` in the
same stream, so nothing is dropped unseen; only a source that cannot be read at all is an error.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from pydantic import JsonValue

from model.lines import MAX_LINE_BYTES, SourceError, read_chunks, read_lines, reason, refuse_number, split_lines

STDIN = "-"
"""The source that stands for standard input."""


@dataclass(frozen=True, slots=True)
class Document:
    """One thing to find.

    Attributes:
        id: The caller's own identifier, unique in an index.
        title: Short name; searched together with the text.
        text: What the document says.
        url: Where a reader finds it.
        metadata: Anything else. Kept, shown, and usable in filters where its field was declared.
        source: Where it was read, for messages; two documents are the same wherever they stood.
        line: The line there, counted from 1; 0 where there are none.
    """

    id: str
    title: str = ""
    text: str = ""
    url: str = ""
    metadata: Mapping[str, JsonValue] = field(default_factory=dict)
    source: str = field(default="", compare=False)
    line: int = field(default=0, compare=False)

    @property
    def passage(self) -> str:
        """What the encoder reads.

        >>> Document("1", title="Gulls", text="They nest on cliffs.").passage
        'Gulls They nest on cliffs.'
        """
        return " ".join(part for part in (self.title, self.text) if part)

    @property
    def content_hash(self) -> str:
        """SHA-256 over everything that is kept: equal when nothing about the document changed."""
        content = [self.title, self.text, self.url, self.metadata]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class BadRecord:
    """A record that could not become a document, or a document that has no vector.

    Attributes:
        source: The file it stood in, or the document it is.
        line: Counted from 1; 0 for a document.
        reason: What is wrong with it.
        record: The record itself, so that it can be repaired and read again.
    """

    source: str
    line: int
    reason: str
    record: str

    @property
    def place(self) -> str:
        """Source and line, for a message."""
        return f"{self.source}, line {self.line}" if self.line else self.source


def read_documents(sources: Iterable[str | Path], stdin: BinaryIO | None = None) -> Iterator[Document | BadRecord]:
    """Every record of every source, in order. An id that was seen before makes a bad record.

    The ids are remembered, about 100 bytes each; everything else passes through.

    Args:
        sources: Folders that hold a `corpus.jsonl`, JSON lines files (`.gz`, `.xz` and `.zst` are unpacked), or `-`.
        stdin: What `-` reads.

    Raises:
        SourceError: A source is missing, damaged, or a folder without a corpus.
    """
    seen: set[str] = set()
    for name, number, line in chain.from_iterable(_numbered(source, stdin) for source in sources):
        try:
            document = _document(_parse(line))
            if document.id in seen:
                raise ValueError(f"id {document.id!r} occurs twice")
        except (ValueError, RecursionError) as error:
            yield BadRecord(name, number, reason(error), line.decode("utf-8", "backslashreplace"))
        else:
            seen.add(document.id)
            yield document


def count_records(sources: Iterable[str | Path]) -> int | None:
    """Records in all sources, found by one quick pass over their lines; None when one is standard input.

    Raises:
        SourceError: As `read_documents`.
    """
    names = [str(source) for source in sources]
    if STDIN in names:
        return None
    return sum(1 for name in names for _ in _numbered(name, None))


def load_queries(folder: Path) -> dict[str, str]:
    """The queries of a BEIR folder: text by id.

    Raises:
        SourceError: The file is missing or holds a line that is no query.
    """
    return dict(read_queries(folder))


def read_queries(folder: Path) -> Iterator[tuple[str, str]]:
    """The queries of a BEIR folder, streamed: id and text.

    Raises:
        SourceError: As `load_queries`.
    """
    for name, number, line in _records(_jsonl(folder, "queries")):
        try:
            record = _parse(line)
            yield _id(record), _text(record, "text")
        except (ValueError, RecursionError) as error:
            raise SourceError(f"{name}, line {number}: {reason(error)}") from error


def load_qrels(folder: Path, split: str = "test") -> dict[str, dict[str, int]]:
    """The judgements of a BEIR folder: grade by document id by query id.

    Raises:
        SourceError: No such split (the message names those there are), an empty one, or a line without three columns.
    """
    qrels: dict[str, dict[str, int]] = {}
    for query_id, document_id, grade in read_judgements(folder, split):
        qrels.setdefault(query_id, {})[document_id] = grade
    return qrels


def read_judgements(folder: Path, split: str) -> Iterator[tuple[str, str, int]]:
    """The judgements of a BEIR folder, streamed: query id, document id and grade.

    Raises:
        SourceError: As `load_qrels`.
    """
    path = folder / "qrels" / f"{split}.tsv"
    if not path.is_file():
        splits = ", ".join(sorted(found.stem for found in path.parent.glob("*.tsv"))) or "none"
        raise SourceError(f"{path}: no such file; splits here: {splits}")
    empty = True
    for name, number, line in _records(path):
        try:
            query_id, document_id, grade = line.decode().rstrip("\r").split("\t")
            if number > 1 or grade.removeprefix("-").isdigit():  # else it is the header
                yield query_id, document_id, int(grade)
                empty = False
        except ValueError as error:
            raise SourceError(
                f"{name}, line {number}: expected query-id, corpus-id and score, tab-separated"
            ) from error
    if empty:
        raise SourceError(f"{path}: holds no judgement")


def _numbered(source: str | Path, stdin: BinaryIO | None) -> Iterator[tuple[str, int, bytes]]:
    if str(source) == STDIN:
        if stdin is None:
            raise SourceError("-: standard input is not connected")
        return _number(STDIN, split_lines(read_chunks(stdin)))
    path = Path(source)
    return _records(_jsonl(path, "corpus") if path.is_dir() else path)


def _records(path: Path) -> Iterator[tuple[str, int, bytes]]:
    return _number(str(path), read_lines(path))


def _number(name: str, lines: Iterable[bytes]) -> Iterator[tuple[str, int, bytes]]:
    return ((name, number, line) for number, line in enumerate(lines, start=1) if line and not line.isspace())


def _jsonl(folder: Path, stem: str) -> Path:
    for suffix in ("", ".gz", ".xz", ".zst"):
        path = folder / f"{stem}.jsonl{suffix}"
        if path.is_file():
            return path
    raise SourceError(f"{folder}: holds no {stem}.jsonl (nor .gz, .xz, .zst); expected the BEIR layout")


def _parse(line: bytes) -> dict[str, JsonValue]:
    if len(line) > MAX_LINE_BYTES:
        raise ValueError(f"longer than {MAX_LINE_BYTES // 2**20} MiB")
    text = line.decode("utf-8-sig")
    record = json.loads(text, parse_constant=refuse_number, parse_float=_finite, parse_int=_int64)
    if not isinstance(record, dict):
        raise ValueError("not a JSON object")
    if "\\u" in text:  # only an escape can smuggle in half of a surrogate pair, which no encoder takes
        json.dumps(record, ensure_ascii=False).encode()
    return record


def _document(record: dict[str, JsonValue]) -> Document:
    identifier = _id(record)
    title, url = _text(record, "title"), _text(record, "url")
    text = _text(record, "text") or _text(record, "contents")
    if not (title.strip() or text.strip()):
        raise ValueError("title and text are both empty")
    nested = record.get("metadata") or {}
    if not isinstance(nested, dict):
        raise ValueError("metadata is not an object")
    id_field = "_id" if "_id" in record else "id"
    known = {id_field, "title", "text", "contents", "url", "metadata"}
    rest = {name: value for name, value in record.items() if name not in known}
    return Document(identifier, title, text, url, rest | nested)


def _id(record: dict[str, JsonValue]) -> str:
    value = record.get("_id", record.get("id"))
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise ValueError("no id: expected a string or an integer in _id or id")
    return str(value)


def _text(record: dict[str, JsonValue], name: str) -> str:
    value = record.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ValueError(f"{name} is not a string")
    return value


def _finite(literal: str) -> float:
    value = float(literal)
    if math.isinf(value):
        refuse_number(literal)
    return value


def _int64(literal: str) -> int:
    value = int(literal)
    if not -(2**63) <= value < 2**63:
        raise ValueError(f"{literal[:30]} does not fit into 64 bits")
    return value
