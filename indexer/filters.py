"""Filters: Qdrant's JSON grammar, checked once and given to the engines as a small tree.

We take the part of the grammar that both engines answer alike and that a payload index can serve. A condition outside
it, on a field that was not declared, or of a type that the field never holds, is refused by name: an engine would take
it and find nothing.
"""

import reprlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, TypeVar, get_args

from pydantic import JsonValue

from indexer.checks import check_point_ids
from indexer.geo import GEO_CONDITIONS, Geo, parse_geo
from indexer.store import FieldType, Filter, InvalidFilter, StoreError

T = TypeVar("T")
MatchKind = Literal["value", "any", "except", "text", "text_any"]

BOUNDS = ("gt", "gte", "lt", "lte")
MATCH_KINDS: dict[str, MatchKind] = {kind: kind for kind in get_args(MatchKind)}

MAX_DEPTH = 8
"""Filters inside filters; deeper ones are somebody probing for a recursion error."""

MAX_SIZE = 4_096
"""Conditions and values in all: a list of as many ids is a use, ten times as many are work without end."""

CLAUSES = ("must", "should", "must_not", "min_should")
CONDITIONS: dict[FieldType, tuple[str, ...]] = {
    "keyword": ("match.value", "match.any", "match.except"),
    "integer": ("match.value", "match.any", "match.except", "range"),
    "float": ("range",),
    "bool": ("match.value",),
    "datetime": ("range",),
    "text": ("match.text", "match.text_any"),
    "geo": GEO_CONDITIONS,
}
"""What a payload index of each type can answer; `values_count`, `is_empty` and `is_null` go with all of them."""

ALLOWED = (
    *CLAUSES,
    *("key", "match", "range", "values_count", *GEO_CONDITIONS, "nested", "is_empty", "is_null", "has_id"),
)
"""What a condition is made of."""

VALUES: dict[FieldType, type[str | int | bool]] = {"keyword": str, "integer": int, "bool": bool, "text": str}
TYPE_NAMES = {str: "a string", int: "a whole number", bool: "true or false"}


@dataclass(frozen=True, slots=True)
class Match:
    """The field holds `values[0]` (`value`), one of them, something else (`except`), or words of a text.

    Those are every word of `values[0]` (`text`) or one of them (`text_any`).
    """

    key: str
    kind: MatchKind
    values: tuple[str | int | bool, ...]


@dataclass(frozen=True, slots=True)
class NumberRange:
    """The field holds a number within the bounds."""

    key: str
    bounds: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class DatetimeRange:
    """The field holds an instant within the bounds, which know their time zone."""

    key: str
    bounds: Mapping[str, datetime]


@dataclass(frozen=True, slots=True)
class ValuesCount:
    """The field holds so many values: as many as its list has, 1 if it is none, 0 if it is missing."""

    key: str
    bounds: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class IsEmpty:
    """The field is missing, null or an empty list."""

    key: str


@dataclass(frozen=True, slots=True)
class IsNull:
    """The field is there and null."""

    key: str


@dataclass(frozen=True, slots=True)
class HasId:
    """The point is one of these."""

    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Clauses:
    """All of `must`, one of `should` if there are any, none of `must_not`, `min_count` of `min_should`."""

    must: tuple["Condition", ...] = ()
    should: tuple["Condition", ...] = ()
    must_not: tuple["Condition", ...] = ()
    min_should: tuple["Condition", ...] = ()
    min_count: int = 0


@dataclass(frozen=True, slots=True)
class Nested:
    """One and the same object of the list at `key` keeps all that is asked; keys are those of the object."""

    key: str
    clauses: Clauses


Condition = Match | NumberRange | DatetimeRange | Geo | ValuesCount | Nested | IsEmpty | IsNull | HasId | Clauses


def parse_filter(filter: Filter, fields: Mapping[str, FieldType]) -> Clauses:
    """Check a filter against the declared fields.

    Raises:
        InvalidFilter: Naming the place in the filter, what is wrong there, and what can stand there.

    >>> parse_filter({"must": {"key": "lang", "match": {"value": "en"}}}, {"lang": "keyword"}).must
    (Match(key='lang', kind='value', values=('en',)),)
    """
    clauses = _Parser(fields).clauses(filter, "filter", depth=1)
    if (size := _size(clauses)) > MAX_SIZE:
        raise InvalidFilter(f"filter: {size} conditions and values; at most {MAX_SIZE} are taken.")
    return clauses


def joined(filter: Filter | None, clause: Literal["must", "must_not"], condition: JsonValue) -> Filter:
    """A filter, checked or not, that keeps one more condition, and is no deeper than it was.

    The condition comes last, so that a message about the others counts them as their author does.

    >>> joined({"must_not": {"is_null": {"key": "x"}}}, "must_not", {"has_id": ["7"]})
    {'must_not': [{'is_null': {'key': 'x'}}, {'has_id': ['7']}]}
    """
    there = (filter or {}).get(clause)
    conditions = there if isinstance(there, list) else [] if there is None else [there]
    return {**(filter or {}), clause: [*conditions, condition]}


def _size(condition: "Condition") -> int:
    """How many conditions, and values of them, an engine has to look at."""
    match condition:
        case Clauses(must, should, must_not, min_should):
            return 1 + sum(map(_size, (*must, *should, *must_not, *min_should)))
        case Nested():
            return 1 + _size(condition.clauses)
        case Match(values=values) | HasId(ids=values):
            return 1 + len(values)
    return 1


@dataclass(frozen=True, slots=True)
class _Parser:
    fields: Mapping[str, FieldType]

    def clauses(self, raw: JsonValue | Filter, at: str, depth: int) -> Clauses:
        if depth > MAX_DEPTH:
            raise InvalidFilter(f"{at}: filters may stand {MAX_DEPTH} deep at most.")
        body = _object(raw, at, allowed=CLAUSES)
        min_should, min_count = self.min_should(body.get("min_should"), f"{at}.min_should", depth)
        must, should, must_not = (
            self.conditions(body.get(name), f"{at}.{name}", depth) for name in ("must", "should", "must_not")
        )
        return Clauses(must, should, must_not, min_should, min_count)

    def conditions(self, raw: JsonValue, at: str, depth: int) -> tuple[Condition, ...]:
        if raw is None:
            return ()
        listed = raw if isinstance(raw, list) else [raw]
        return tuple(self.condition(one, f"{at}[{i}]", depth) for i, one in enumerate(listed))

    def min_should(self, raw: JsonValue, at: str, depth: int) -> tuple[tuple[Condition, ...], int]:
        if raw is None:
            return (), 0
        body = _object(raw, at, allowed=("conditions", "min_count"))
        count = body.get("min_count")
        if type(count) is not int or not 1 <= count < 2**31:
            raise InvalidFilter(f"{at}.min_count: expected a whole number from 1, got {reprlib.repr(count)}.")
        conditions = self.conditions(body.get("conditions"), f"{at}.conditions", depth)
        if not conditions:
            raise InvalidFilter(f"{at}.conditions: expected at least one condition.")
        if count > len(conditions):  # the embedded engine leaves such a clause out where another stands beside it
            raise InvalidFilter(f"{at}.min_count: expected at most the {len(conditions)} conditions, got {count}.")
        return conditions, count

    def condition(self, raw: JsonValue, at: str, depth: int) -> Condition:
        body = _object(raw, at, allowed=ALLOWED)
        match sorted(body):
            case ["key", "match"]:
                return self.match(self.key(body, at), body["match"], f"{at}.match")
            case ["key", "range"]:
                return self.range(self.key(body, at), body["range"], f"{at}.range")
            case ["key", "values_count"]:
                return ValuesCount(self.key(body, at), _counts(body["values_count"], f"{at}.values_count"))
            case ["geo_bounding_box" | "geo_polygon" | "geo_radius" as name, "key"]:
                key = self.key(body, at)
                self.serves(key, name, at)
                return parse_geo(key, name, body[name], f"{at}.{name}")
            case ["nested"]:
                return self.nested(body["nested"], f"{at}.nested", depth)
            case ["is_empty"]:
                return IsEmpty(self.key(_object(body["is_empty"], at, allowed=("key",)), f"{at}.is_empty"))
            case ["is_null"]:
                return IsNull(self.key(_object(body["is_null"], at, allowed=("key",)), f"{at}.is_null"))
            case ["has_id"]:
                return HasId(_point_ids(body["has_id"], f"{at}.has_id"))
        nested = self.clauses(raw, at, depth + 1) if body.keys() <= set(CLAUSES) else Clauses()
        if nested == Clauses():
            raise InvalidFilter(
                f"{at}: expected a key with match, range, values_count or one of geo, or one of nested, is_empty, "
                f"is_null, has_id, or a filter that is not empty; got {', '.join(sorted(body)) or 'an empty object'}."
            )
        return nested

    def nested(self, raw: JsonValue, at: str, depth: int) -> Nested:
        """Inside, a declared `items[].name` is called `name`."""
        body = _object(raw, at, allowed=("key", "filter"))
        key = body.get("key")
        prefix = f"{key.removesuffix('[]')}[]." if isinstance(key, str) else ""
        inside = {
            field.removeprefix(prefix): type
            for field, type in self.fields.items()
            if prefix and field.startswith(prefix)
        }
        if not isinstance(key, str) or not inside:
            raise InvalidFilter(
                f"{at}.key: no field inside {reprlib.repr(key)} is declared in this index; declare one as a path such "
                "as metadata.items[].name, and build the index again."
            )
        clauses = _Parser(inside).clauses(body.get("filter"), f"{at}.filter", depth + 1)
        if clauses == Clauses():
            raise InvalidFilter(f"{at}.filter: expected a filter that is not empty.")
        return Nested(key, clauses)

    def key(self, body: Mapping[str, JsonValue], at: str) -> str:
        key = body.get("key")
        if not isinstance(key, str) or key not in self.fields:
            declared = ", ".join(sorted(self.fields))
            raise InvalidFilter(
                f"{at}.key: {reprlib.repr(key)} is not declared in this index; filter on one of {declared}, or build "
                "the index again with this field declared."
            )
        return key

    def match(self, key: str, raw: JsonValue, at: str) -> Match:
        body = _object(raw, at, allowed=tuple(MATCH_KINDS))
        if len(body) != 1:
            raise InvalidFilter(f"{at}: expected exactly one of {', '.join(MATCH_KINDS)}; got {len(body)}.")
        ((name, operand),) = body.items()
        kind = MATCH_KINDS[name]
        self.serves(key, f"match.{kind}", at)
        if kind in ("value", "text", "text_any"):
            values: Sequence[JsonValue] = [operand]
        elif isinstance(operand, list) and (operand or kind == "any"):
            values = operand
        else:
            raise InvalidFilter(f"{at}.{kind}: expected a list of values, got {reprlib.repr(operand)}.")
        return Match(key, kind, tuple(_value(one, VALUES[self.fields[key]], f"{at}.{kind}") for one in values))

    def range(self, key: str, raw: JsonValue, at: str) -> NumberRange | DatetimeRange:
        self.serves(key, "range", at)
        body = _object(raw, at, allowed=BOUNDS)
        if not body:
            raise InvalidFilter(f"{at}: expected at least one of gt, gte, lt, lte.")
        if self.fields[key] == "datetime":
            return DatetimeRange(key, _bounds(body, _instant, at))
        return NumberRange(key, _bounds(body, _number, at))

    def serves(self, key: str, condition: str, at: str) -> None:
        declared = self.fields[key]
        if condition not in CONDITIONS[declared]:
            raise InvalidFilter(
                f"{at}: {key} is declared as {declared}, which takes {', '.join(CONDITIONS[declared])}, values_count, "
                f"is_empty and is_null; got {condition}."
            )


def _object(raw: JsonValue | Filter, at: str, allowed: Sequence[str]) -> Mapping[str, JsonValue]:
    if not isinstance(raw, Mapping):
        raise InvalidFilter(f"{at}: expected an object, got {reprlib.repr(raw)}.")
    for name in raw:
        if name not in allowed:
            raise InvalidFilter(f"{at}: {reprlib.repr(name)} is not supported here; use one of {', '.join(allowed)}.")
    return raw


def _bounds(body: Mapping[str, JsonValue], read: Callable[[JsonValue, str], T], at: str) -> dict[str, T]:
    return {name: read(value, f"{at}.{name}") for name, value in body.items()}


def _counts(raw: JsonValue, at: str) -> dict[str, int]:
    body = _object(raw, at, allowed=BOUNDS)
    if not body:
        raise InvalidFilter(f"{at}: expected at least one of gt, gte, lt, lte.")
    return _bounds(body, _count, at)


def _count(raw: JsonValue, at: str) -> int:
    if type(raw) is not int or not 0 <= raw < 2**31:
        raise InvalidFilter(f"{at}: expected a whole number from 0, got {reprlib.repr(raw)}.")
    return raw


def _number(raw: JsonValue, at: str) -> float:
    if isinstance(raw, bool) or not isinstance(raw, int | float) or not abs(raw) <= sys.float_info.max:
        raise InvalidFilter(f"{at}: expected a finite number, got {reprlib.repr(raw)}.")
    return float(raw)


def _instant(raw: JsonValue, at: str) -> datetime:
    try:
        instant = datetime.fromisoformat(raw) if isinstance(raw, str) else None
    except ValueError:
        instant = None
    if instant is None:
        raise InvalidFilter(f"{at}: expected a date or time such as 2026-01-31T12:00:00Z, got {reprlib.repr(raw)}.")
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)


def _value(raw: JsonValue, expected: type[str | int | bool], at: str) -> str | int | bool:
    if type(raw) is not expected or not isinstance(raw, str | int):
        raise InvalidFilter(f"{at}: expected {TYPE_NAMES[expected]}, got {reprlib.repr(raw)}.")
    if isinstance(raw, str) and any("\ud800" <= char <= "\udfff" for char in raw):
        raise InvalidFilter(f"{at}: {reprlib.repr(raw)} holds half of a surrogate pair; send valid Unicode.")
    if isinstance(raw, int) and not -(2**63) <= raw < 2**63:
        raise InvalidFilter(f"{at}: {reprlib.repr(raw)} does not fit into 64 bits.")
    return raw


def _point_ids(raw: JsonValue, at: str) -> tuple[str, ...]:
    if not isinstance(raw, list):
        raise InvalidFilter(f"{at}: expected a list of point ids, got {reprlib.repr(raw)}.")
    ids = tuple(id for id in raw if isinstance(id, str))
    try:
        check_point_ids(ids)
    except StoreError as error:
        raise InvalidFilter(f"{at}: {error}") from error
    if len(ids) != len(raw):
        raise InvalidFilter(f"{at}: expected point ids as strings, got {reprlib.repr(raw)}.")
    return ids
