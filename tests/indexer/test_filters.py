"""Filters: what is refused and how, and that engines keep what the grammar says."""

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import JsonValue

from indexer.filters import MAX_DEPTH, MAX_SIZE, parse_filter
from indexer.store import FieldType, InvalidFilter, Payload, Store
from tests.indexer.brute_force import new_build, random_points, random_queries
from tests.indexer.conftest import ENGINES, opened_engine

FIELDS: dict[str, FieldType] = {
    "metadata.lang": "keyword",
    "metadata.tens": "integer",
    "metadata.price": "float",
    "metadata.open": "bool",
    "metadata.when": "datetime",
    "metadata.note": "text",
    "metadata.tags": "keyword",
    "metadata.at": "geo",
    "metadata.items[].name": "keyword",
    "metadata.items[].size": "integer",
}
MANY: dict[str, JsonValue] = {"any": ["en"] * MAX_SIZE}
ROME: dict[str, JsonValue] = {"lon": 12.5, "lat": 12.5}
SQUARE: list[JsonValue] = [
    {"lon": lon, "lat": lat} for lon, lat in ((4.5, 4.5), (20.5, 4.5), (20.5, 20.5), (4.5, 20.5), (4.5, 4.5))
]
HOLE: list[JsonValue] = [
    {"lon": lon, "lat": lat} for lon, lat in ((9.5, 9.5), (12.5, 9.5), (12.5, 12.5), (9.5, 12.5), (9.5, 9.5))
]
POINTS = random_points(40, seed=1)
QUERY = random_queries(1, seed=1)[0]

REFUSED: dict[str, tuple[JsonValue, str]] = {
    "an undeclared field": (
        {"must": [{"key": "metadata.langg", "match": {"value": "en"}}]},
        r"filter.must\[0\].key: 'metadata.langg' is not declared.*one of chunk, doc_id, metadata.at, .*metadata.note",
    ),
    "an unknown clause": ({"mist": []}, "'mist' is not supported here; use one of must, should, must_not, min_should"),
    "an unknown condition": (
        {"should": [{"key": "doc_id", "has_vector": {}}]},
        r"filter.should\[0\]: 'has_vector' is not supported here; use one of must, .*match, range, values_count, geo",
    ),
    "a condition on objects of which no field is declared": (
        {"must": [{"nested": {"key": "metadata.tags", "filter": {}}}]},
        r"nested.key: no field inside 'metadata.tags' is declared.*such as metadata.items\[\].name",
    ),
    "objects without a name": ({"must": [{"nested": {"filter": {}}}]}, "no field inside None is declared"),
    "an outer field in an object": (
        {"must": [{"nested": {"key": "metadata.items", "filter": {"must": [{"is_null": {"key": "metadata.lang"}}]}}}]},
        r"nested.filter.must\[0\].is_null.key: 'metadata.lang' is not declared.*one of name, size,",
    ),
    "nothing asked of an object": (
        {"must": [{"nested": {"key": "metadata.items[]", "filter": {}}}]},
        "nested.filter: expected a filter that is not empty",
    ),
    "a place in a keyword": (
        {"must": [{"key": "doc_id", "geo_radius": {"center": ROME, "radius": 5}}]},
        "doc_id is declared as keyword.*got geo_radius",
    ),
    "a word for a place": (
        {"must": [{"key": "metadata.at", "match": {"value": "Rome"}}]},
        "declared as geo, which takes geo_radius, geo_bounding_box, geo_polygon, values_count, is_empty and is_null",
    ),
    "a place off the globe": (
        {"must": [{"key": "metadata.at", "geo_radius": {"center": {"lon": 12, "lat": 91}, "radius": 5}}]},
        "geo_radius.center.lat: Input should be less than or equal to 90; got 91",
    ),
    "a box upside down": (
        {"must": [{"key": "metadata.at", "geo_bounding_box": {"top_left": ROME, "bottom_right": SQUARE[2]}}]},
        "geo_bounding_box: Value error, top_left lies south of bottom_right",
    ),
    "an open ring": (
        {"must": [{"key": "metadata.at", "geo_polygon": {"exterior": {"points": SQUARE[:4]}}}]},
        "geo_polygon.exterior: Value error, the last point is not the first",
    ),
    "a count of half": (
        {"must": [{"key": "metadata.tags", "values_count": {"gt": 0.5}}]},
        "values_count.gt: expected a whole number from 0, got 0.5",
    ),
    "a count without bounds": ({"must": [{"key": "metadata.tags", "values_count": {}}]}, "at least one of gt, gte"),
    "a match of two kinds": (
        {"must": [{"key": "doc_id", "match": {"value": "a", "any": ["b"]}}]},
        "expected exactly one of value, any, except, text, text_any; got 2",
    ),
    "an unknown match": ({"must": [{"key": "doc_id", "match": {"phrase": "a"}}]}, "'phrase' is not supported here"),
    "match and range at once": (
        {"must": [{"key": "metadata.tens", "match": {"value": 1}, "range": {"gt": 1}}]},
        "expected a key with match, range, .*; got key, match, range",
    ),
    "words in a keyword": (
        {"must": [{"key": "metadata.lang", "match": {"text": "en"}}]},
        "metadata.lang is declared as keyword, which takes match.value, match.any, match.except, values_count, is",
    ),
    "a range of words": ({"must": [{"key": "metadata.lang", "range": {"gt": 1}}]}, "declared as keyword.*got range"),
    "an exact float": ({"must": [{"key": "metadata.price", "match": {"value": 1}}]}, "declared as float.*takes range"),
    "a number for a word": ({"must": [{"key": "doc_id", "match": {"value": 1}}]}, "value: expected a string, got 1"),
    "true for a number": (
        {"must": [{"key": "metadata.tens", "match": {"value": True}}]},
        "value: expected a whole number, got True",
    ),
    "one for true": ({"must": [{"key": "metadata.open", "match": {"value": 1}}]}, "expected true or false, got 1"),
    "a number beyond 64 bits": (
        {"must": [{"key": "metadata.tens", "match": {"any": [2**63]}}]},
        "does not fit into 64 bits",
    ),
    "a bound that is no number": (
        {"must": [{"key": "metadata.tens", "range": {"gte": "1"}}]},
        "range.gte: expected a finite number, got '1'",
    ),
    "an infinite bound": (
        {"must": [{"key": "metadata.price", "range": {"gte": float("inf")}}]},
        "expected a finite number, got inf",
    ),
    "a bound beyond floats": (
        {"must": [{"key": "metadata.price", "range": {"gte": 10**400}}]},
        "expected a finite number, got 1000",
    ),
    "a range without bounds": ({"must": [{"key": "metadata.price", "range": {}}]}, "at least one of gt, gte, lt, lte"),
    "no date": (
        {"must": [{"key": "metadata.when", "range": {"lt": "soon"}}]},
        "expected a date or time such as 2026-01-31T12:00:00Z, got 'soon'",
    ),
    "a seconds count as date": (
        {"must": [{"key": "metadata.when", "range": {"lt": 7}}]},
        "expected a date or time such as .*, got 7",
    ),
    "half a surrogate": ({"must": [{"key": "doc_id", "match": {"value": "\ud800"}}]}, "half of a surrogate pair"),
    "one value for many": ({"must": [{"key": "doc_id", "match": {"any": "a"}}]}, "any: expected a list of values"),
    "except nothing": ({"must": [{"key": "doc_id", "match": {"except": []}}]}, "except: expected a list of values"),
    "an empty condition": ({"must": [{}]}, r"must\[0\]: expected a key with match, range.*got an empty object"),
    "an empty filter inside": ({"must": [{"should": []}]}, "or a filter that is not empty; got should"),
    "no object": ({"must": ["en"]}, r"must\[0\]: expected an object, got 'en'"),
    "a count of none": (
        {"min_should": {"conditions": [{"is_null": {"key": "doc_id"}}], "min_count": 0}},
        "min_should.min_count: expected a whole number from 1, got 0",
    ),
    "a count over all": (
        {"min_should": {"conditions": [{"is_null": {"key": "doc_id"}}], "min_count": 2}},
        "min_should.min_count: expected at most the 1 conditions, got 2",
    ),
    "a count over nothing": ({"min_should": {"conditions": [], "min_count": 1}}, "at least one condition"),
    "an id that is none": ({"must": [{"has_id": ["7"]}]}, r"has_id: Point id '7' is not a UUID"),
    "a number as id": ({"must": [{"has_id": [7]}]}, "has_id: expected point ids as strings"),
    "ids without a list": ({"must": [{"has_id": "7"}]}, "has_id: expected a list of point ids"),
}


@pytest.mark.parametrize(("filter", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_a_filter_outside_the_grammar_is_refused_by_place_and_remedy(filter: Any, reason: str) -> None:
    with pytest.raises(InvalidFilter, match=reason):
        parse_filter(filter, new_build("b", fields=FIELDS).indexed_fields)


def test_a_filter_is_as_deep_as_allowed_and_no_deeper() -> None:
    filter: JsonValue = {"must": {"key": "doc_id", "match": {"value": "a"}}}
    for _ in range(MAX_DEPTH - 1):
        filter = {"must": filter}
    assert isinstance(filter, dict)
    parse_filter(filter, {"doc_id": "keyword"})
    with pytest.raises(InvalidFilter, match=f"{MAX_DEPTH} deep at most"):
        parse_filter({"must": filter}, {"doc_id": "keyword"})


@pytest.fixture(scope="module", params=ENGINES)
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with opened_engine(request.param, tmp_path_factory.mktemp("engine")) as engine:
        store = engine.create(new_build("b1", fields=FIELDS))
        store.upsert(POINTS)
        yield store
        store.close()


def found(store: Store, filter: dict[str, JsonValue]) -> set[str]:
    return {str(hit.point.payload["doc_id"]) for hit in store.search(QUERY, mode="cls", limit=100, filter=filter)}


Keep = Callable[[Payload], bool]


def field(payload: Payload, key: str) -> Any:
    metadata = payload["metadata"]
    assert isinstance(metadata, dict)
    return payload.get(key) if key in payload else metadata.get(key.removeprefix("metadata."))


def one(condition: dict[str, JsonValue], keep: Keep) -> st.SearchStrategy[tuple[JsonValue, Keep]]:
    return st.just((condition, keep))


def matches(key: str, values: list[Any]) -> st.SearchStrategy[tuple[JsonValue, Keep]]:
    value, some = st.sampled_from(values), st.lists(st.sampled_from(values), min_size=1, max_size=3)
    return st.one_of(
        value.map(lambda v: ({"key": key, "match": {"value": v}}, lambda p: field(p, key) == v)),
        some.map(lambda vs: ({"key": key, "match": {"any": vs}}, lambda p: field(p, key) in vs)),
        some.map(lambda vs: ({"key": key, "match": {"except": vs}}, lambda p: field(p, key) not in vs)),
    )


def ranges(key: str, values: list[Any], read: Callable[[Any], Any]) -> st.SearchStrategy[tuple[JsonValue, Keep]]:
    def keep(low: Any, high: Any) -> Keep:
        return lambda p: field(p, key) is not None and read(low) <= read(field(p, key)) < read(high)

    pair = st.tuples(st.sampled_from(values), st.sampled_from(values))
    return pair.map(lambda b: ({"key": key, "range": {"gte": b[0], "lt": b[1]}}, keep(*b)))


CONDITIONS = st.one_of(
    matches("metadata.lang", ["en", "de", "fr"]),
    matches("metadata.tens", [0, 3, 7, 11]),
    matches("doc_id", ["d1", "d2", "d39", "d40"]),
    ranges("metadata.tens", [0, 2.5, 7, 100], lambda number: number),
    ranges("metadata.price", [-1, 0.25, 5, 9.75], lambda number: number),
    ranges(
        "metadata.when", ["2026-01-03", "2026-01-09T02:00:00+02:00", "2026-01-20T00:00:00Z"], lambda text: instant(text)
    ),
    one({"key": "metadata.open", "match": {"value": True}}, lambda p: field(p, "metadata.open") is True),
    one({"key": "metadata.open", "match": {"value": False}}, lambda p: field(p, "metadata.open") is False),
    one({"key": "metadata.note", "match": {"text": "twice GULL"}}, lambda p: field(p, "metadata.note") is not None),
    one({"key": "metadata.note", "match": {"text": "3 gull"}}, lambda p: "_3," in (field(p, "metadata.note") or "")),
    one({"key": "metadata.note", "match": {"text_any": "GULL never"}}, lambda p: field(p, "metadata.note") is not None),
    one({"key": "metadata.tags", "values_count": {"gte": 2}}, lambda p: len(field(p, "metadata.tags")) >= 2),
    one({"key": "metadata.tags", "values_count": {"lt": 1}}, lambda p: not field(p, "metadata.tags")),
    one(
        {"key": "metadata.at", "geo_radius": {"center": ROME, "radius": 250_000}},
        lambda p: 10.9 < field(p, "metadata.at")["lat"] < 14.1,
    ),
    one(
        {"key": "metadata.at", "geo_bounding_box": {"top_left": SQUARE[3], "bottom_right": SQUARE[1]}},
        lambda p: 4.5 < field(p, "metadata.at")["lat"] < 20.5,
    ),
    one(
        {"key": "metadata.at", "geo_polygon": {"exterior": {"points": SQUARE}, "interiors": [{"points": HOLE}]}},
        lambda p: 4.5 < (lat := field(p, "metadata.at")["lat"]) < 20.5 and not 9.5 < lat < 12.5,
    ),
    one(
        {
            "nested": {
                "key": "metadata.items",
                "filter": {"must": [{"key": "name", "match": {"value": "i1"}}, {"key": "size", "range": {"gte": 1}}]},
            }
        },
        lambda p: any(each["name"] == "i1" and each["size"] >= 1 for each in field(p, "metadata.items")),
    ),
    one(
        {"key": "metadata.items[].name", "match": {"value": "i2"}},
        lambda p: field(p, "metadata.items")[0]["name"] == "i2",
    ),
    one({"is_empty": {"key": "metadata.price"}}, lambda p: field(p, "metadata.price") is None),
    one({"is_null": {"key": "metadata.note"}}, lambda p: field(p, "metadata.note") is None),
    one({"has_id": [POINTS[3].id, POINTS[30].id]}, lambda p: p["doc_id"] in ("d3", "d30")),
    one({"key": "doc_id", "match": {"any": []}}, lambda _: False),
)


def instant(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else datetime.fromisoformat(f"{text}T00:00:00+00:00")


def clauses(conditions: st.SearchStrategy[tuple[JsonValue, Keep]]) -> st.SearchStrategy[tuple[JsonValue, Keep]]:
    several = st.lists(conditions, min_size=1, max_size=3)

    def joined(name: str, keep: Callable[[list[bool]], bool]) -> st.SearchStrategy[tuple[JsonValue, Keep]]:
        return several.map(lambda cs: ({name: [c for c, _ in cs]}, lambda p: keep([k(p) for _, k in cs])))

    at_least_two = st.lists(conditions, min_size=2, max_size=3).map(
        lambda cs: (
            {"min_should": {"conditions": [c for c, _ in cs], "min_count": 2}},
            lambda p: sum(k(p) for _, k in cs) >= 2,
        )
    )
    return st.one_of(
        joined("must", all), joined("should", any), joined("must_not", lambda xs: not any(xs)), at_least_two
    )


@pytest.mark.parametrize(
    "filter",
    [
        {"must": [{"key": "metadata.lang", "match": MANY}]},
        {"should": [{"must_not": [{"is_null": {"key": "metadata.lang"}}] * 64}] * 64},
        {"must_not": {"nested": {"key": "metadata.items", "filter": {"must": {"key": "name", "match": MANY}}}}},
    ],
)
def test_a_filter_that_is_work_without_end_is_refused(filter: dict[str, JsonValue]) -> None:
    with pytest.raises(InvalidFilter, match=f"conditions and values; at most {MAX_SIZE} are taken"):
        parse_filter(filter, FIELDS)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn=clauses(st.recursive(CONDITIONS, clauses, max_leaves=4)))
def test_an_engine_keeps_what_the_filter_says(store: Store, drawn: tuple[dict[str, JsonValue], Keep]) -> None:
    filter, keep = drawn
    assert found(store, filter) == {str(point.payload["doc_id"]) for point in POINTS if keep(point.payload)}
