"""The fused candidates of the embedded engine, whose two sides are each asked once, against all scores."""

import math
from collections.abc import Collection, Iterator
from contextlib import closing
from uuid import UUID

import pytest
import qdrant_edge as edge
from hypothesis import given
from hypothesis import strategies as st

from indexer import edge_fused
from indexer.edge import EdgeEngine
from indexer.edge_fused import fused_candidates, surely_reached, undecided
from indexer.edge_requests import by_ids
from indexer.edge_store import EdgeStore
from indexer.filters import parse_filter
from indexer.ranking import TIE
from indexer.store import Filter, Point, Side
from model.vector import FusedVector
from tests.indexer.brute_force import new_build, random_points, random_queries

POINTS, DEPTH = 400, 40


@pytest.fixture(scope="module")
def points() -> list[Point]:
    return random_points(POINTS, seed=5)


@pytest.fixture(scope="module")
def store(points: list[Point], tmp_path_factory: pytest.TempPathFactory) -> Iterator[EdgeStore]:
    with closing(
        EdgeEngine(tmp_path_factory.mktemp("data")).create(new_build("b1", fields={"metadata.lang": "keyword"}))
    ) as store:
        store.upsert(points)
        store.optimize()
        yield store


@pytest.mark.parametrize("scan", [False, True])
@pytest.mark.parametrize("filter", [None, {"must": [{"key": "metadata.lang", "match": {"value": "en"}}]}])
@pytest.mark.parametrize("limit", [1, 3, 10, DEPTH, 3 * DEPTH])
def test_the_best_of_both_lists_are_all_there_with_their_whole_score(
    store: EdgeStore, points: list[Point], limit: int, filter: Filter | None, scan: bool
) -> None:
    clauses = parse_filter(filter, store.build.indexed_fields) if filter else None
    seen = points[1::2] if filter else points  # every other one is English
    for query in random_queries(25, seed=6):
        parts = {point.id: query.score(point.vector) for point in seen}
        cls = sorted(parts, key=lambda id: -parts[id].cls)[:DEPTH]
        ot = sorted((id for id in parts if parts[id].ot), key=lambda id: -parts[id].ot)[:DEPTH]
        best = sorted({*cls, *ot}, key=lambda id: -parts[id].score)[:limit]
        candidates = fused_candidates(store._shard, query, limit=limit, depth=DEPTH, filter=clauses, scan=scan)
        found = {str(candidate.id): candidate.score for candidate in candidates}
        assert found.keys() >= set(best)
        assert found == pytest.approx({id: parts[id].score for id in found}, abs=1e-4)


def asked_for(monkeypatch: pytest.MonkeyPatch) -> dict[str, set[str]]:
    """By side, the points whose score the candidates' second and third step ask for."""
    ids: dict[str, set[str]] = {"cls": set(), "ot": set()}

    def seen(query: FusedVector, side: Side, wanted: Collection[UUID]) -> edge.QueryRequest:
        ids[side] |= {str(id) for id in wanted}
        return by_ids(query, side, wanted)

    monkeypatch.setattr(edge_fused, "by_ids", seen)
    return ids


def test_what_words_alone_have_found_is_scored_where_a_graph_may_have_missed_it(
    store: EdgeStore, points: list[Point], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No bound on its [CLS] score would hold. Where all are scanned, the last of the list bounds it."""
    for query in random_queries(5, seed=7):
        parts = {point.id: query.score(point.vector) for point in points}
        cls = sorted(parts, key=lambda id: -parts[id].cls)[:DEPTH]
        ot = sorted((id for id in parts if parts[id].ot), key=lambda id: -parts[id].ot)[:DEPTH]
        alone, best = set(ot) - set(cls), max(part.score for part in parts.values())
        asked = asked_for(monkeypatch)
        fused_candidates(store._shard, query, limit=1, depth=DEPTH, filter=None, scan=False)
        assert asked["cls"] == alone
        asked = asked_for(monkeypatch)
        fused_candidates(store._shard, query, limit=1, depth=DEPTH, filter=None, scan=True)
        possible = {id for id in alone if parts[id].ot + parts[cls[-1]].cls >= best - 1e-3}
        assert possible <= asked["cls"] < alone


SCORES = st.dictionaries(st.integers(0, 30), st.floats(-5, 5).map(lambda score: round(score, 2)), max_size=20)


@given(sums=SCORES, lone=SCORES, added=st.data(), most=st.floats(0, 3), limit=st.integers(1, 12))
def test_nobody_who_can_be_among_the_best_is_decided_before_his_score_is_known(
    sums: dict[int, float], lone: dict[int, float], added: st.DataObject, most: float, limit: int
) -> None:
    lone = {id: score for id, score in lone.items() if id not in sums}
    least = surely_reached([*sums.values(), *lone.values()], limit)
    open_ = undecided(lone, sums, most=most, least=least)
    true = sums | {id: score + added.draw(st.floats(0, most)) for id, score in lone.items()}
    best = sorted(true, key=lambda id: -true[id])[:limit]
    assert {id for id in best if id in lone} <= set(open_)


def test_a_near_tie_at_the_cut_is_left_open() -> None:
    least = surely_reached([4.0], 1)
    assert undecided({2: 3.0, 3: 3.0 - 100 * TIE}, {1: 4.0}, most=1.0 - TIE, least=least) == [2]


def test_nothing_is_surely_reached_by_more_than_there_are() -> None:
    assert surely_reached([1.0], 2) == -math.inf
