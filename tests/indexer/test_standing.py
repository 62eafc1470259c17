"""A rank is 1 and the number of documents that score higher, whatever way it was found out."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from indexer import standing
from indexer.edge import EdgeEngine
from indexer.grouping import parent
from indexer.standing import Standing
from indexer.store import Filter, Point, Store
from model.vector import FusedVector
from tests.indexer.brute_force import new_build, numbered_point, random_points, random_queries, random_vector

POINTS = random_points(600, seed=11)
FILTER: Filter = {"must": [{"key": "metadata.lang", "match": {"value": "en"}}]}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    engine = EdgeEngine(tmp_path_factory.mktemp("engine"))
    store = engine.create(new_build("b1", fields={"metadata.lang": "keyword"}))
    store.upsert(POINTS)
    store.flush()
    yield store
    store.close()


def true_rank(query: FusedVector, point: Point, number_of: range) -> int:
    """By brute force; `number_of` are the numbers of the points that the filter lets through."""
    score = query.score(point.vector).score
    higher = {parent(POINTS[number]) for number in number_of if query.score(POINTS[number].vector).score > score}
    return 1 + len(higher - {parent(point)})


def ask(store: Store, query: FusedVector, point: Point, filter: Filter | None = None) -> Standing:
    return standing.standing(store, query, query.score(point.vector).score, parent_id=parent(point), filter=filter)


@pytest.mark.parametrize(
    ("depths", "fetched"),
    [((4, 32), 1_024), ((32, 1_024), 1_024), ((1_024,), 1_024), ((8,), 0), ((1_024,), 0)],
    ids=["two rungs, then all points", "to the bottom", "at once", "never certain", "all seen, nothing decided"],
)
def test_the_rank_is_that_of_brute_force_at_any_depth(
    store: Store, monkeypatch: pytest.MonkeyPatch, depths: tuple[int, ...], fetched: int
) -> None:
    monkeypatch.setattr(standing, "DEPTHS", depths)
    monkeypatch.setattr(standing, "MOST_FETCHED", fetched)
    for query in random_queries(4, seed=5):
        best_first = sorted(POINTS, key=lambda point: -query.score(point.vector).score)
        for point in (best_first[0], best_first[1], best_first[12], best_first[300], best_first[-1]):
            assert ask(store, query, point) == (true_rank(query, point, range(600)), True)
            assert ask(store, query, point, FILTER) == (true_rank(query, point, range(1, 600, 2)), True)


def test_equal_documents_share_a_rank(tmp_path: Path) -> None:
    vector = random_vector(np.random.default_rng(3))
    store = EdgeEngine(tmp_path).create(new_build("b1"))
    store.upsert([numbered_point(number, vector) for number in range(0, 80, 2)])
    (query,) = random_queries(1, seed=6)
    ranks = {ask(store, query, point).rank for point in store.scroll()}
    store.close()
    assert ranks == {1}


def test_when_the_time_is_up_the_rank_is_what_is_known_by_then(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standing, "DEPTHS", (16,))
    (query,) = random_queries(1, seed=7)
    last = min(POINTS, key=lambda point: query.score(point.vector).score)
    for looks in range(4):
        left = iter([True] * looks)
        found = standing.standing(store, query, query.score(last.vector).score, may_go_on=partial(next, left, False))
        assert not found.exact
        assert 1 <= found.rank < true_rank(query, last, range(600))
