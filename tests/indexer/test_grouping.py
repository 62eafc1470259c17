"""Grouped hits are what brute force finds: every document once, by its best passage."""

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest

from indexer import grouping
from indexer.grouping import Wanted, grouped_hits, usual_passages
from indexer.points import point_id
from indexer.store import Engine, Filter, Mode, Point, Store
from model.vector import FusedVector, Parts
from tests.indexer.brute_force import BruteForce, assert_same_hits, new_build, random_queries, random_vector
from tests.indexer.conftest import ENGINES, opened_engine

MODES: list[Mode] = ["fused", "cls", "ot", "rrf"]
DOCUMENTS = 60


class Filled(NamedTuple):
    store: Store
    brute: BruteForce
    parents: dict[str, str]
    hoarded: FusedVector
    """A query of which `d0` has the best 150 passages."""


def passage(document: int, number: int, vector: FusedVector) -> Point:
    id = f"d{document}"
    return Point(point_id(id, number), vector, {"doc_id": id, "parent_id": id, "chunk": number})


@pytest.fixture(scope="module", params=ENGINES)
def filled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filled]:
    """60 documents of 1 to 12 passages, and one of 150 that are almost the same."""
    rng = np.random.default_rng(1)
    (hoarded,) = random_queries(1, seed=9)
    near = [replace(hoarded, cls=hoarded.cls * np.float32(10 + number / 150)) for number in range(150)]
    points = [passage(0, number, vector) for number, vector in enumerate(near)]
    points += [
        passage(document, number, random_vector(rng))
        for document in range(1, DOCUMENTS)
        for number in range(1 + document % 12)
    ]
    build = new_build("b1").model_copy(update={"documents": DOCUMENTS, "passages": len(points)})
    with opened_engine(request.param, tmp_path_factory.mktemp("engine")) as engine:
        store = engine.create(build)
        store.upsert(points)
        store.flush()
        yield Filled(store, BruteForce(points), {p.id: str(p.payload["parent_id"]) for p in points}, hoarded)
        store.close()


@pytest.mark.parametrize("limit", [1, 10, DOCUMENTS, 200])
@pytest.mark.parametrize("mode", MODES)
def test_documents_stand_in_the_order_of_their_best_passages(filled: Filled, mode: Mode, limit: int) -> None:
    for query in [*random_queries(2, seed=3), filled.hoarded]:
        depth = 1000  # of all passages, so that the reciprocal ranks do not depend on what was looked at
        found = grouped_hits(filled.store, query, Wanted(mode), limit=limit, depth=depth)
        best: dict[str, tuple[str, Parts]] = {}
        for id, parts in filled.brute.search(query, mode, limit=depth, depth=depth):
            best.setdefault(filled.parents[id], (id, parts))
        assert found.complete
        assert_same_hits(found.hits, list(best.values())[:limit])


def test_one_document_may_hold_all_the_best_passages_and_the_others_still_follow(filled: Filled) -> None:
    best = filled.store.search(filled.hoarded, limit=100)
    assert {hit.point.payload["parent_id"] for hit in best} == {"d0"}
    found = grouped_hits(filled.store, filled.hoarded, limit=10)
    assert len({hit.point.payload["parent_id"] for hit in found.hits}) == 10
    assert found.complete


def test_an_answer_that_the_bound_cut_short_says_so(filled: Filled, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grouping, "MOST_PASSAGES", 100)
    found = grouped_hits(filled.store, filled.hoarded, limit=10)
    assert [hit.point.payload["parent_id"] for hit in found.hits] == ["d0"]
    assert not found.complete


def test_a_filter_by_parent_gives_the_passages_of_one_document(filled: Filled) -> None:
    (query,) = random_queries(1, seed=4)
    of_d7: Filter = {"must": [{"key": "parent_id", "match": {"value": "d7"}}]}
    hits = filled.store.search(query, limit=50, filter=of_d7)
    assert sorted(hit.point.id for hit in hits) == sorted(point_id("d7", number) for number in range(8))
    found = grouped_hits(filled.store, query, Wanted(filter=of_d7), limit=10)
    assert [hit.point.id for hit in found.hits] == [hits[0].point.id]
    assert found.complete


def test_documents_of_one_passage_are_answered_as_the_engine_answers(engine: Engine) -> None:
    rng = np.random.default_rng(2)
    store = engine.create(new_build("b1").model_copy(update={"documents": 50, "passages": 50}))
    store.upsert([passage(document, 0, random_vector(rng)) for document in range(50)])
    for query in random_queries(3, seed=5):
        expected = [(hit.point.id, hit.parts) for hit in store.search(query, limit=7)]
        assert_same_hits(grouped_hits(store, query, limit=7).hits, expected)
    assert usual_passages(store.build, 7) == 7
    store.close()


@pytest.mark.parametrize(
    ("documents", "passages", "looked_at"),
    [(0, 0, 10), (100, 90, 10), (100, 100, 10), (1000, 1001, 15), (1000, 1070, 16), (100, 150, 20), (100, 250, 30)],
)
def test_more_passages_are_looked_at_the_more_a_document_has(documents: int, passages: int, looked_at: int) -> None:
    build = new_build("b1").model_copy(update={"documents": documents, "passages": passages})
    assert usual_passages(build, 10) == looked_at
