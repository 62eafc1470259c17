"""From candidates to hits: the order, the cut and the parts are decided here, once for every engine.

An engine brings candidates with float32 scores, in an order that says nothing about ties. We score those that can be
on the page again in float64 from their stored vectors, so that equal documents stand in order of id, a shorter page is
the beginning of a longer one, and an engine that scores other vectors than it stores is found out.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from heapq import nlargest
from typing import Literal, Protocol

import numpy as np

from indexer.store import Hit, Mode, Point, StoreError
from model.vector import FusedVector, Parts

Scoring = Literal["fused", "cls", "ot"]
Ranked = tuple[str, float]
"""Point id and the engine's score."""

RRF_K = 60
"""The constant of reciprocal rank fusion (Cormack et al., 2009)."""

TIE = 1e-5
"""Relative difference below which float32 cannot order two scores, so both sides of the cut are fetched."""

TOLERANCE = 1e-4
"""Allowed difference of the engine's score, relative to the products of norms that bound float32's rounding."""


RETRIES = 3
"""Live writes may change a point between its score and its vectors; the same few points seldom change so often."""


class Candidate(Protocol):
    """A point that an engine found. Its id becomes text only where it is looked at: few of some hundred are."""

    @property
    def id(self) -> object:
        """The point's."""

    @property
    def score(self) -> float:
        """The engine's, float32."""


class _ScoreDisagrees(StoreError):
    """A point's score is not that of its vectors."""


def best_hits(
    query: FusedVector,
    mode: Mode,
    limit: int,
    *,
    candidates: Callable[[Scoring], Sequence[Candidate]],
    get: Callable[[Sequence[str]], list[Point]],
) -> list[Hit]:
    """The best `limit` of an engine's candidates, sorted by (-score, id).

    Args:
        query: The encoded query.
        mode: What `score` means.
        limit: Hits to return, at least 1.
        candidates: Asks the engine for its best points by one scoring.
        get: Fetches points by id; one that has vanished since is left out. If one has changed, all is asked again.

    Raises:
        StoreError: The engine scores other vectors than it stores, however often it is asked.
    """
    assert limit > 0, limit
    for _ in range(RETRIES):
        with suppress(_ScoreDisagrees):
            return _best_hits(query, mode, limit, candidates, get)
    return _best_hits(query, mode, limit, candidates, get)


def _best_hits(
    query: FusedVector,
    mode: Mode,
    limit: int,
    candidates: Callable[[Scoring], Sequence[Candidate]],
    get: Callable[[Sequence[str]], list[Point]],
) -> list[Hit]:
    if mode == "rrf":
        ranked = reciprocal_rank_fusion(_ranked(candidates("cls")), _ranked(candidates("ot")))[:limit]
        points = {point.id: point for point in get([id for id, _ in ranked])}
        return [Hit(points[id], parts.score, parts) for id, parts in ranked if id in points]
    contenders = dict(_ranked(_contenders(candidates(mode), limit)))
    hits = _hits(query, mode, get(list(contenders)), contenders)
    return sorted(hits, key=lambda hit: (-hit.score, hit.point.id))[:limit]


def by_score(candidates: Iterable[Ranked]) -> list[Ranked]:
    """Candidates in order of (-score, id).

    >>> by_score([("b", 1.0), ("c", 2.0), ("a", 1.0)])
    [('c', 2.0), ('a', 1.0), ('b', 1.0)]
    """
    return sorted(candidates, key=lambda candidate: (-candidate[1], candidate[0]))


def reciprocal_rank_fusion(cls: Iterable[Ranked], ot: Iterable[Ranked]) -> list[tuple[str, Parts]]:
    """Fuse two candidate lists by rank: each side adds 1 / (60 + rank), and 0 where it lacks the point.

    Returns:
        Ids with their two reciprocal ranks, sorted by (-sum, id).

    >>> [id for id, _ in reciprocal_rank_fusion([("a", 9.0), ("b", 8.0)], [("b", 0.2), ("c", 0.1)])]
    ['b', 'a', 'c']
    """
    cls_part, ot_part = (
        {id: 1 / (RRF_K + rank) for rank, (id, _) in enumerate(by_score(side), start=1)} for side in (cls, ot)
    )
    fused = {id: Parts(cls_part.get(id, 0.0), ot_part.get(id, 0.0)) for id in cls_part | ot_part}
    return sorted(fused.items(), key=lambda item: (-item[1].score, item[0]))


def _ranked(candidates: Iterable[Candidate]) -> Iterator[Ranked]:
    return ((str(candidate.id), candidate.score) for candidate in candidates)


def _contenders(candidates: Sequence[Candidate], limit: int) -> Sequence[Candidate]:
    """The first `limit` candidates and those behind the cut that may belong before it, in no order."""
    if len(candidates) <= limit:
        return candidates
    scores = [candidate.score for candidate in candidates]
    last = nlargest(limit, scores)[-1]
    least = last - TIE * max(1.0, abs(last))
    return [candidate for candidate, score in zip(candidates, scores, strict=True) if score >= least]


def _hits(query: FusedVector, mode: Scoring, points: Sequence[Point], engine_scores: Mapping[str, float]) -> list[Hit]:
    """All at once, as `FusedVector.scores` is meant to be used."""
    vectors = [point.vector for point in points]
    norms = np.linalg.norm([query.cls, *(vector.cls for vector in vectors)], axis=1)
    bounds = (norms[:1] * norms[1:]).tolist()
    scored = zip(points, query.scores(vectors), bounds, strict=True)
    return [_hit(mode, point, both, engine_scores[point.id], bound) for point, both, bound in scored]


def _hit(mode: Scoring, point: Point, both: Parts, engine_score: float, norms: float) -> Hit:
    parts = Parts(both.cls if mode != "ot" else 0.0, both.ot if mode != "cls" else 0.0)
    if not abs(parts.score - engine_score) <= TOLERANCE * (1.0 + norms + both.ot):
        raise _ScoreDisagrees(
            f"Point {point.id} (document {point.payload.get('doc_id')!r}) has the {mode} score {engine_score:.6g} in "
            f"the engine and {parts.score:.6g} by its stored vectors: it changed during the search, or the build is "
            "damaged. Search again; if it stays, build the index again."
        )
    return Hit(point, parts.score, parts)
