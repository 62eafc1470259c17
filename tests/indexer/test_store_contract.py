"""One contract over every engine: the answers are those of brute force."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest

from indexer.checks import MAX_DEPTH
from indexer.store import FieldType, Filter, Mode, Payload, Point, Side, Store, StoreError
from model.vector import FusedVector
from tests.indexer.brute_force import (
    VOCABULARY,
    BruteForce,
    assert_equal_points,
    assert_same_hits,
    nested,
    new_build,
    numbered_point,
    random_points,
    random_queries,
    random_vector,
)
from tests.indexer.conftest import ENGINES, opened_engine

MODES: list[Mode] = ["fused", "cls", "ot", "rrf"]


class Selection(NamedTuple):
    filter: Filter
    keep: Callable[[Payload], bool]


def metadata(payload: Payload) -> Payload:
    found = payload["metadata"]
    assert isinstance(found, dict)
    return found


SELECTIONS = {
    "everything": Selection({}, lambda _: True),
    "half": Selection(
        {"must": [{"key": "metadata.lang", "match": {"value": "en"}}]}, lambda p: metadata(p)["lang"] == "en"
    ),
    "a tenth": Selection(
        {"must": [{"key": "metadata.tens", "match": {"value": 7}}]}, lambda p: metadata(p)["tens"] == 7
    ),
    "a hundredth": Selection(
        {"must": [{"key": "metadata.hundreds", "match": {"value": 42}}]}, lambda p: metadata(p)["hundreds"] == 42
    ),
}


class Filled(NamedTuple):
    store: Store
    brute: BruteForce


@pytest.fixture(scope="module", params=ENGINES)
def filled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filled]:
    """A store after inserts, an optimization, updates and deletes, and what it should hold."""
    points = random_points(700, seed=1)
    with opened_engine(request.param, tmp_path_factory.mktemp("engine")) as engine:
        fields: dict[str, FieldType] = {
            "metadata.lang": "keyword",
            "metadata.tens": "integer",
            "metadata.hundreds": "integer",
        }
        store = engine.create(new_build("b1", fields=fields))
        store.upsert(points)
        store.optimize()
        rng = np.random.default_rng(2)
        updated = [replace(point, vector=random_vector(rng)) for point in points[:60]]
        store.upsert(updated)
        store.delete([point.id for point in points[-60:]])
        store.flush()
        yield Filled(store, BruteForce([*updated, *points[60:-60]]))
        store.close()


@pytest.fixture(scope="module", params=ENGINES)
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with opened_engine(request.param, tmp_path_factory.mktemp("engine")) as engine:
        store = engine.create(new_build("b1"))
        yield store
        store.close()


@pytest.fixture
def store(shared: Store) -> Iterator[Store]:
    """An empty store, open for writing; emptied, not made, for each test, since making one takes a dozen fsyncs."""
    yield shared
    shared.delete([point.id for point in shared.scroll()])


@pytest.mark.parametrize("selection", SELECTIONS.values(), ids=SELECTIONS.keys())
@pytest.mark.parametrize("mode", MODES)
def test_the_answer_is_that_of_brute_force(filled: Filled, mode: Mode, selection: Selection) -> None:
    for query in random_queries(3, seed=3):
        hits = filled.store.search(query, mode=mode, filter=selection.filter)
        assert_same_hits(hits, filled.brute.search(query, mode, keep=selection.keep))
        for hit in hits:
            assert_equal_points(hit.point, filled.brute.points[hit.point.id])


@pytest.mark.parametrize("mode", MODES)
def test_a_shorter_page_is_the_beginning_of_a_longer_one(filled: Filled, mode: Mode) -> None:
    (query,) = random_queries(1, seed=4)
    longer = [hit.point.id for hit in filled.store.search(query, mode=mode, limit=50)]
    assert len(longer) == 50
    assert [hit.point.id for hit in filled.store.search(query, mode=mode, limit=7)] == longer[:7]


def test_searches_in_several_threads_do_not_disturb_each_other(filled: Filled) -> None:
    queries = random_queries(8, seed=4)
    with ThreadPoolExecutor(4) as threads:
        for query, hits in zip(queries, threads.map(filled.store.search, queries), strict=True):
            assert_same_hits(hits, filled.brute.search(query))


def test_a_limit_beyond_the_depth_raises_the_depth(filled: Filled) -> None:
    (query,) = random_queries(1, seed=5)
    assert len(filled.store.search(query, mode="cls", limit=300, depth=10)) == 300


def test_a_small_depth_costs_hits_but_never_the_score(filled: Filled) -> None:
    (query,) = random_queries(1, seed=6)
    for hit in filled.store.search(query, limit=10, depth=10):
        assert hit.parts == query.score(filled.brute.points[hit.point.id].vector)


def test_count_and_scroll_tell_what_is_left_after_updates_and_deletes(filled: Filled) -> None:
    assert filled.store.count() == len(filled.brute.points)
    stored = list(filled.store.scroll())
    assert [point.id for point in stored] == sorted(filled.brute.points)
    for point in stored:
        assert_equal_points(point, filled.brute.points[point.id])


def test_get_keeps_the_order_it_was_asked_in_and_leaves_out_the_unknown(filled: Filled) -> None:
    ids = sorted(filled.brute.points, reverse=True)[:3]
    deleted = numbered_point(699, random_queries(1, seed=1)[0]).id
    assert [point.id for point in filled.store.get([ids[1], deleted, ids[0], ids[2]])] == [ids[1], ids[0], ids[2]]


@pytest.mark.parametrize("mode", MODES)
def test_equal_scores_stand_in_order_of_id(store: Store, mode: Mode) -> None:
    (vector,) = random_queries(1, seed=7)
    points = [numbered_point(number, vector) for number in range(30)]
    store.upsert(points)
    in_order = sorted(point.id for point in points)
    assert [hit.point.id for hit in store.search(vector, mode=mode, limit=12)] == in_order[:12]


@pytest.mark.parametrize("mode", MODES)
def test_a_limit_beyond_the_count_gives_everything(store: Store, mode: Mode) -> None:
    points = random_points(20, seed=8)
    store.upsert(points)
    (query,) = random_queries(1, seed=8)
    assert_same_hits(store.search(query, mode=mode, limit=1000), BruteForce(points).search(query, mode, limit=1000))


@pytest.mark.parametrize("mode", MODES)
def test_an_empty_store_gives_nothing(store: Store, mode: Mode) -> None:
    (query,) = random_queries(1, seed=9)
    assert store.search(query, mode=mode) == []
    assert store.count() == 0
    assert list(store.scroll()) == []
    assert store.get([numbered_point(1, query).id]) == []


def test_deleting_what_is_not_there_changes_nothing(store: Store) -> None:
    (point, other) = random_points(2, seed=10)
    store.upsert([point])
    store.delete([other.id])
    assert store.count() == 1


def test_writing_a_point_twice_keeps_the_second(store: Store) -> None:
    (point,) = random_points(1, seed=11)
    newer = replace(point, payload={"doc_id": "newer"})
    store.upsert([point])
    store.upsert([newer])
    (stored,) = store.scroll()
    assert_equal_points(stored, newer)


def test_a_document_without_a_common_word_still_has_its_cls_part(store: Store) -> None:
    ones = np.ones(16, np.float32)
    two = np.full(1, 2, np.float32)
    store.upsert([numbered_point(1, FusedVector(ones, np.array([1]), two))])
    (hit,) = store.search(FusedVector(ones, np.array([2]), two))
    assert hit.parts == (16.0, 0.0)


GOOD = random_queries(1, seed=12)[0]
REFUSED = {
    "has a cls vector of shape (3,) where the build has 16": replace(GOOD, cls=np.ones(3, np.float32)),
    "NaN or infinity in its cls": replace(GOOD, cls=np.full(16, np.nan, np.float32)),
    "has NaN or infinity in": replace(GOOD, cls=np.full(16, np.inf, np.float32)),
    "not finite and above 0": replace(GOOD, ot_values=GOOD.ot_values * np.float32(np.nan)),
    "OT values that are not finite and above 0": replace(GOOD, ot_values=np.zeros(8, np.float32)),
    "finite and above 0; encode": replace(GOOD, ot_values=-GOOD.ot_values),
    "(8,) OT indices for (3,) OT values": replace(GOOD, ot_values=GOOD.ot_values[:3]),
    "not ascending": replace(GOOD, ot_indices=GOOD.ot_indices[::-1]),
    "ascending, unique": replace(GOOD, ot_indices=np.full(8, VOCABULARY)),
    "within 32 bits": replace(GOOD, ot_indices=GOOD.ot_indices - VOCABULARY),
    "an empty OT side": replace(GOOD, ot_indices=np.empty(0, np.int64), ot_values=np.empty(0, np.float32)),
}


@pytest.mark.parametrize(("reason", "vector"), REFUSED.items(), ids=REFUSED.keys())
def test_a_broken_vector_is_refused_by_name_before_anything_is_written(
    store: Store, reason: str, vector: FusedVector
) -> None:
    with pytest.raises(StoreError) as refused:
        store.upsert([numbered_point(1, GOOD), numbered_point(2, vector)])
    assert "Document 'd2'" in str(refused.value)
    assert reason in str(refused.value)
    assert store.count() == 0
    with pytest.raises(StoreError, match="The query has"):
        store.search(vector)


@pytest.mark.parametrize("value", [float("nan"), "\ud800", object()], ids=["NaN", "half a surrogate", "an object"])
def test_a_payload_that_is_not_json_is_refused_by_name(store: Store, value: object) -> None:
    payload: dict[str, object] = {"doc_id": "d7", "title": value}
    with pytest.raises(StoreError, match="Document 'd7' has a payload that is not JSON"):
        store.upsert([Point(numbered_point(7, GOOD).id, GOOD, payload)])  # type: ignore[arg-type]  # what is tested


def test_metadata_is_as_deep_as_allowed_and_no_deeper(store: Store) -> None:
    point = numbered_point(7, GOOD)
    held = replace(point, payload=point.payload | {"metadata": nested(MAX_DEPTH)})
    store.upsert([held])
    assert [hit.point.payload for hit in store.search(GOOD)] == [held.payload]
    with pytest.raises(StoreError, match=f"Document 'd7' has metadata nested more than {MAX_DEPTH} deep"):
        store.upsert([replace(point, payload=point.payload | {"metadata": nested(MAX_DEPTH + 1)})])


@pytest.mark.parametrize("id", ["7", "d7", "5CD9D8A8-E438-5800-85A3-6285F2DCD694"])
def test_a_point_id_is_a_canonical_uuid(store: Store, id: str) -> None:
    with pytest.raises(StoreError, match="is not a UUID in lower case"):
        store.upsert([Point(id, GOOD, {})])


@pytest.mark.parametrize("selection", SELECTIONS.values(), ids=SELECTIONS)
def test_a_scroll_with_a_filter_reads_what_the_filter_lets_through(filled: Filled, selection: Selection) -> None:
    kept = sorted(id for id, point in filled.brute.points.items() if selection.keep(point.payload))
    assert [point.id for point in filled.store.scroll(filter=selection.filter)] == kept
    assert [point.id for point in filled.store.scroll(kept[3], filter=selection.filter)] == kept[3:]


@pytest.mark.parametrize("selection", SELECTIONS.values(), ids=SELECTIONS)
@pytest.mark.parametrize("side", ["cls", "ot"])
def test_the_best_points_by_one_side_are_those_of_brute_force(filled: Filled, selection: Selection, side: Side) -> None:
    for query in random_queries(5, seed=8):
        found = filled.store.scored(query, side, limit=20, filter=selection.filter)
        expected = filled.brute.search(query, side, 20, keep=selection.keep)
        assert [point.score for point in sorted(found, key=lambda point: -point.score)] == pytest.approx(
            [parts.score for _, parts in expected], abs=1e-4
        )
        for point in found:
            assert point.parent_id == filled.brute.points[point.id].payload["parent_id"]
