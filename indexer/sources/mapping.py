"""Records to documents: which columns are id, title, text and url, and what is left as metadata."""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, time
from decimal import Decimal

from pydantic import JsonValue

from indexer.checks import MAX_DEPTH, is_too_deep
from indexer.documents import Document
from indexer.sources.options import Field
from model.lines import MAX_LINE_BYTES, SourceError, parse_object, too_long

Columns = Mapping[Field, tuple[str, ...]]

NAMES: Mapping[Field, tuple[str, ...]] = {
    "id": ("_id", "id"),
    "title": ("title",),
    "text": ("text", "contents"),
    "url": ("url",),
}
"""The columns of a field that is not mapped: the first that is there (of text, that is not empty)."""

_JOINED: Mapping[Field, str] = {"id": "/", "title": " ", "text": "\n\n", "url": ""}


def make_document(record: Mapping[str, JsonValue], columns: Columns, source: str = "", line: int = 0) -> Document:
    """The document that a record is.

    Args:
        record: What was read. Columns that no field took become metadata; so does what an object `metadata` holds.
        columns: As in `ReadOptions`.
        source: Where it was read.
        line: The line there.

    Raises:
        ValueError: No id, neither title nor text, a value of the wrong kind, or more than a line or an engine may hold.
    """
    used = {name: columns.get(name) or _present(record, name) for name in NAMES}
    identifier = _identifier(record, used["id"])
    title, text, url = (
        _JOINED[name].join(filter(None, (_text(record, column) for column in used[name])))
        for name in ("title", "text", "url")
    )
    if not (title.strip() or text.strip()):
        raise ValueError("title and text are both empty")
    if len(title) + len(text) > MAX_LINE_BYTES:
        raise ValueError(too_long())
    rest = dict(record)
    for names in used.values():
        for column in names:
            _remove(rest, column)
    metadata = _merged(rest)
    if is_too_deep(metadata):
        raise ValueError(f"metadata is nested more than {MAX_DEPTH} deep")
    return Document(identifier, title, text, url, metadata, source, line)


def check_columns(names: Sequence[str], columns: Columns, where: str) -> None:
    """Raise SourceError, naming the columns there are, unless documents can be made of a table with these."""
    there = f"columns: {', '.join(names) or 'none'}"
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise SourceError(f"{where}: two columns are called {twice[0]!r}; rename one")
    for field, mapped in columns.items():
        for column in mapped:
            if column not in names:
                raise SourceError(f"{where}: no column {column!r} for {field}; {there}")
    if "id" not in columns and not _has_any(names, NAMES["id"]):
        raise SourceError(f"{where}: no column _id or id; say --map id=COLUMN; {there}")
    if not {"title", "text"} & columns.keys() and not _has_any(names, (*NAMES["title"], *NAMES["text"])):
        raise SourceError(f"{where}: no column title or text; say --map text=COLUMN; {there}")


def to_json(record: Mapping[str, object]) -> dict[str, JsonValue]:
    """A record of Python values as JSON has it: times in ISO 8601, decimals as numbers, bytes as text.

    >>> to_json({"day": date(2015, 1, 2), "price": Decimal("2.50"), "name": b"gull"})
    {'day': '2015-01-02', 'price': 2.5, 'name': 'gull'}

    Raises:
        ValueError: NaN, infinity, a number of more than 64 bits, or what is no text.
        RecursionError: Nested too deeply.
    """
    try:
        return parse_object(json.dumps(record, default=_plain).encode())
    except TypeError as error:
        raise ValueError(str(error)) from error


def _plain(value: object) -> object:
    match value:
        case date() | datetime() | time():
            return value.isoformat()
        case Decimal():
            return float(value)
        case bytes():
            return value.decode()
        case _:
            raise ValueError(f"a {type(value).__name__} is nothing that JSON holds")


def _present(record: Mapping[str, JsonValue], field: Field) -> tuple[str, ...]:
    """The column that a field is, where no mapping says so."""
    there = [column for column in NAMES[field] if column in record]
    filled = [column for column in there if field != "text" or record[column] not in (None, "")]
    return tuple((filled or there)[:1])


def _identifier(record: Mapping[str, JsonValue], columns: Iterable[str]) -> str:
    values = [_value(record, column) for column in columns]
    for value in values:
        if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
            values = []
    if not values:
        expected = ", ".join(columns) or "_id or id"
        raise ValueError(f"no id: expected a string or an integer in {expected}")
    return _JOINED["id"].join(map(str, values))


def _text(record: Mapping[str, JsonValue], column: str) -> str:
    value = _value(record, column)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ValueError(f"{column} is not a string")
    return value


def _value(record: Mapping[str, JsonValue], column: str) -> JsonValue:
    """What stands in a column, which may be a path into nested objects; a name that holds dots itself goes first.

    >>> _value({"body": {"plain": "Gulls nest."}}, "body.plain")
    'Gulls nest.'
    """
    if column in record:
        return record[column]
    head, _, tail = column.partition(".")
    inner = record.get(head)
    return _value(inner, tail) if tail and isinstance(inner, dict) else None


def _remove(record: dict[str, JsonValue], column: str) -> None:
    """Take a column out; an object that is empty then goes too. What is nested is copied, not changed."""
    head, _, tail = column.partition(".")
    inner = record.get(head)
    if column not in record and tail and isinstance(inner, dict):
        record[head] = inner = dict(inner)
        _remove(inner, tail)
        if not inner:
            del record[head]
    else:
        record.pop(column, None)


def _merged(rest: dict[str, JsonValue]) -> dict[str, JsonValue]:
    nested = rest.pop("metadata", None) or {}
    if not isinstance(nested, dict):
        raise ValueError("metadata is not an object")
    if clashes := [name for name in nested if name in rest and rest[name] != nested[name]]:
        raise ValueError(f"{clashes[0]} stands in metadata and beside it, with different values")
    return rest | nested


def _has_any(names: Iterable[str], columns: Iterable[str]) -> bool:
    return any(column in names for column in columns)
