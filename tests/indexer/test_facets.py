"""Values are counted alike on every engine: by documents, under the filter, exactly."""

from collections import Counter
from collections.abc import Iterator, Mapping
from types import MappingProxyType

import numpy as np
import pytest

from indexer.points import point_id
from indexer.store import FieldType, Filter, InvalidFacet, InvalidFilter, Payload, Point, Store
from tests.indexer.brute_force import new_build, random_vector
from tests.indexer.conftest import ENGINES, opened_engine

FIELDS: Mapping[str, FieldType] = MappingProxyType(
    {
        "metadata.lang": "keyword",
        "metadata.tags": "keyword",
        "metadata.year": "integer",
        "metadata.open": "bool",
        "metadata.price": "float",
        "metadata.when": "datetime",
        "metadata.note": "text",
    }
)
DOCUMENTS = 60


def metadata(number: int) -> Payload:
    held: Payload = {
        "lang": ["en", "de", "fr", "Ärger", "zz"][number % 5],
        "tags": ["all", f"t{number % 3}"] if number % 4 else [],
        "year": 1990 + number % 7,
        "open": number % 3 == 0,
        "price": number / 4,
        "when": "2026-01-01T00:00:00Z",
        "note": "a gull",
    }
    if number % 10 == 0:
        del held["lang"]
    return held


def passages(number: int) -> list[Point]:
    """A document of up to four passages, every one with its metadata, as a build has it."""
    rng = np.random.default_rng(number)
    shared: Payload = {"doc_id": f"d{number}", "parent_id": f"d{number}", "metadata": metadata(number)}
    return [
        Point(point_id(f"d{number}", chunk), random_vector(rng), {**shared, "chunk": chunk})
        for chunk in range(1 + number % 4)
    ]


@pytest.fixture(scope="module", params=ENGINES)
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with opened_engine(request.param, tmp_path_factory.mktemp("engine")) as engine:
        store = engine.create(new_build("b1", fields=FIELDS))
        store.upsert([point for number in range(DOCUMENTS) for point in passages(number)])
        store.flush()
        yield store
        store.close()


def counted(store: Store, field: str, filter: Filter | None = None, limit: int = 10) -> list[tuple[object, int]]:
    return [(each.value, each.count) for each in store.facets(field, filter, limit=limit)]


def expected(name: str, numbers: range | list[int]) -> list[tuple[object, int]]:
    held = [metadata(number).get(name) for number in numbers]
    counts = Counter(
        value for each in held for value in (each if isinstance(each, list) else [each]) if each is not None
    )
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


@pytest.mark.parametrize("name", ["lang", "tags", "year", "open"])
@pytest.mark.parametrize("limit", [1, 2, 10])
def test_each_value_is_counted_once_for_each_document(store: Store, name: str, limit: int) -> None:
    assert counted(store, f"metadata.{name}", limit=limit) == expected(name, range(DOCUMENTS))[:limit]


def test_only_documents_under_the_filter_are_counted(store: Store) -> None:
    where: Filter = {
        "must": [{"key": "metadata.year", "range": {"gte": 1995}}],
        "must_not": {"is_empty": {"key": "metadata.lang"}},
    }
    numbers = [number for number in range(DOCUMENTS) if number % 7 >= 5 and number % 10]
    assert counted(store, "metadata.lang", where) == expected("lang", numbers)
    assert counted(store, "metadata.lang", {}) == expected("lang", range(DOCUMENTS))
    nobody: Filter = {"must": [{"key": "metadata.lang", "match": {"value": "xx"}}]}
    assert counted(store, "metadata.lang", nobody) == []


@pytest.mark.parametrize("field", ["metadata.price", "metadata.when", "metadata.note", "metadata.colour", "doc_id", ""])
def test_a_field_that_cannot_be_counted_is_refused_with_those_that_can(store: Store, field: str) -> None:
    with pytest.raises(InvalidFacet) as refused:
        store.facets(field)
    assert repr(field) in str(refused.value)
    assert "metadata.lang, metadata.open, metadata.tags, metadata.year" in str(refused.value)


def test_a_filter_that_cannot_be_answered_is_refused_as_in_a_search(store: Store) -> None:
    with pytest.raises(InvalidFilter, match=r"'colour' is not declared"):
        store.facets("metadata.lang", {"must": [{"key": "colour", "match": {"value": "red"}}]})
