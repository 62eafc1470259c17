"""The order of hits, apart from any engine."""

from itertools import starmap
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.ranking import best_hits, reciprocal_rank_fusion
from indexer.store import Mode, StoreError
from tests.indexer.brute_force import random_points, random_queries

IDS = st.sampled_from("abcdefgh")
SIDE = st.dictionaries(IDS, st.floats(-4, 4).map(lambda score: round(score, 1))).map(lambda side: list(side.items()))


class Found(NamedTuple):
    id: str
    score: float


@given(cls=SIDE, ot=SIDE)
def test_rank_fusion_forgets_the_order_of_its_input_and_treats_both_sides_alike(
    cls: list[tuple[str, float]], ot: list[tuple[str, float]]
) -> None:
    fused = reciprocal_rank_fusion(cls, ot)
    assert fused == reciprocal_rank_fusion(cls[::-1], ot[::-1])
    assert [(id, parts[::-1]) for id, parts in fused] == [
        (id, tuple(parts)) for id, parts in reciprocal_rank_fusion(ot, cls)
    ]
    assert {id for id, _ in fused} == {id for id, _ in cls} | {id for id, _ in ot}
    assert fused == sorted(fused, key=lambda item: (-item[1].score, item[0]))


@given(side=SIDE)
def test_fusing_a_side_with_itself_keeps_its_order(side: list[tuple[str, float]]) -> None:
    in_order = [id for id, _ in sorted(side, key=lambda candidate: (-candidate[1], candidate[0]))]
    assert [id for id, _ in reciprocal_rank_fusion(side, side)] == in_order


def test_an_engine_that_scores_other_vectors_than_it_stores_is_found_out() -> None:
    points = {point.id: point for point in random_points(3, seed=1)}
    (query,) = random_queries(1, seed=1)
    scores = [Found(id, query.score(point.vector).score) for id, point in points.items()]
    wrong = [Found(id, score + 0.1) for id, score in scores]

    def hits(candidates: list[Found]) -> list[str]:
        found = best_hits(
            query, "fused", 3, candidates=lambda _: candidates, get=lambda ids: [points[id] for id in ids]
        )
        return [hit.point.id for hit in found]

    assert set(hits(scores)) == set(points)
    with pytest.raises(StoreError, match=r"Point \S+ \(document 'd\d'\) has the fused score"):
        hits(wrong)


def test_a_point_that_changes_during_the_search_is_scored_again() -> None:
    before, after = random_points(1, seed=1)[0], random_points(1, seed=2)[0]
    (query,) = random_queries(1, seed=1)
    scores = iter([query.score(point.vector).score for point in (before, after)])
    found = best_hits(query, "fused", 1, candidates=lambda _: [Found(after.id, next(scores))], get=lambda _: [after])
    assert [(hit.point, hit.score) for hit in found] == [(after, query.score(after.vector).score)]


def test_scores_that_float32_cannot_order_are_ordered_by_their_vectors() -> None:
    """The engine puts the wrong one of two near-equal points first and the page holds one."""
    points = {point.id: point for point in random_points(2, seed=2)}
    (query,) = random_queries(1, seed=2)
    exact = {id: query.score(point.vector).score for id, point in points.items()}
    worse, better = sorted(exact, key=lambda id: exact[id])
    blurred = {better: exact[better], worse: exact[better] * (1 + 1e-7)}
    assert blurred[worse] > blurred[better]
    near = points[better].vector
    twins = {id: type(point)(id, near, {}) for id, point in points.items()}
    ranked = [*starmap(Found, blurred.items())]
    (hit,) = best_hits(query, "fused", 1, candidates=lambda _: ranked, get=lambda ids: [twins[id] for id in ids])
    assert hit.point.id == min(twins)


def test_a_point_that_vanished_during_the_search_is_left_out() -> None:
    (point, gone) = random_points(2, seed=3)
    (query,) = random_queries(1, seed=3)
    scores = [Found(each.id, query.score(each.vector).score) for each in (point, gone)]
    modes: tuple[Mode, ...] = ("fused", "rrf")
    for mode in modes:
        hits = best_hits(query, mode, 2, candidates=lambda _: scores, get=lambda _: [point])
        assert [hit.point.id for hit in hits] == [point.id]
