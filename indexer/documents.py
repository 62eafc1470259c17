"""What is indexed, what could not be, and the queries and judgements that come with a BEIR collection.

Where documents come from is the matter of `indexer.sources`.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import JsonValue

from model.lines import PACKED, SourceError, parse_object, read_lines, reason


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

    def refused(self, reason: str) -> "BadRecord":
        """What becomes of it when it cannot be indexed; the record kept is a JSON line that reads as this document."""
        record = {"_id": self.id, "title": self.title, "text": self.text, "url": self.url, "metadata": self.metadata}
        return BadRecord(self.source, self.line, reason, json.dumps(record, ensure_ascii=False))


@dataclass(frozen=True, slots=True)
class BadRecord:
    """A record that could not become a document, or a document that has no vector.

    Attributes:
        source: The file it stood in, or the document it is.
        line: Counted from 1; 0 for a document, and for a file that is one.
        reason: What is wrong with it.
        record: The record itself, so that it can be repaired and read again; of a file, its path.
    """

    source: str
    line: int
    reason: str
    record: str

    @property
    def place(self) -> str:
        """Source and line, for a message."""
        return f"{self.source}, line {self.line}" if self.line else self.source


def distinct(records: Iterable[Document | BadRecord]) -> Iterator[Document | BadRecord]:
    """The same records, but a document whose id was there before comes as a bad record.

    The ids are remembered, as digests of 16 bytes, about 100 bytes of memory each.
    """
    seen: set[bytes] = set()
    for record in records:
        if isinstance(record, Document):
            digest = hashlib.blake2b(record.id.encode(), digest_size=16).digest()
            if digest in seen:
                record = record.refused(f"id {record.id!r} occurs twice")
            seen.add(digest)
        yield record


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
    path = find_jsonl(folder, "queries")
    if path is None:
        raise SourceError(f"{folder}: holds no queries.jsonl (nor {', '.join(PACKED)}); expected the BEIR layout")
    for name, number, line in _records(path):
        try:
            record = parse_object(line)
            yield _id(record), _text(record)
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


def find_jsonl(folder: Path, stem: str) -> Path | None:
    """The file of JSON lines of that name in a folder, plain or packed."""
    candidates = (folder / f"{stem}.jsonl{suffix}" for suffix in ("", *PACKED))
    return next((path for path in candidates if path.is_file()), None)


def is_record(line: bytes) -> bool:
    """Whether a line holds anything but space."""
    return bool(line) and not line.isspace()


def _records(path: Path) -> Iterator[tuple[str, int, bytes]]:
    return ((str(path), number, line) for number, line in enumerate(read_lines(path), start=1) if is_record(line))


def _id(record: Mapping[str, JsonValue]) -> str:
    value = record.get("_id", record.get("id"))
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise ValueError("no id: expected a string or an integer in _id or id")
    return str(value)


def _text(record: Mapping[str, JsonValue]) -> str:
    value = record.get("text")
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ValueError("text is not a string")
    return value
