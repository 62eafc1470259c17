"""How many documents score higher than a given score: the true rank of a document, found by a search or not.

A search looks at the best candidates of either side. What it has not seen scores at most what the last of both sides
add up to, which is Fagin's threshold algorithm: once that is below the given score, nobody unseen can be higher, and
the count is exact. Until then the search is deepened; in a build that is deeper than that, every point is read.

Memory is that of the candidates, and of the ids of the documents that score higher. Time is not bounded here: the
caller says when it is up.
"""

from collections.abc import Callable, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np

from indexer.grouping import parent
from indexer.ranking import TOLERANCE
from indexer.store import Filter, Point, Scored, Store
from model.vector import FusedVector

DEPTHS = (256, 4_096, 65_536)
"""Candidates a side. The last rung holds most builds whole, in some 20 MB."""

MOST_FETCHED = 1_024
"""Points whose vectors are fetched to decide what the candidates leave open; for more, going deeper is cheaper."""

PAGE = 256
"""Points between two looks at the clock."""


class Standing(NamedTuple):
    """Where a score stands among all documents.

    Attributes:
        rank: 1 and the number of documents that are known to score higher.
        exact: Whether all of them are known; else the time was up, and the true rank is this or a later one.
    """

    rank: int
    exact: bool


class _Decided(NamedTuple):
    """What one depth of search says; `settled` if it says all there is to say."""

    higher: set[str]
    settled: bool


class _Best(NamedTuple):
    """The best points by one side.

    Attributes:
        scores: By point id.
        documents: Ids of their documents, by point id.
        rest: What any other point scores at most.
    """

    scores: dict[str, float]
    documents: dict[str, str]
    rest: float


def standing(
    store: Store,
    query: FusedVector,
    score: float,
    *,
    parent_id: str | None = None,
    filter: Filter | None = None,
    may_go_on: Callable[[], bool] = lambda: True,
) -> Standing:
    """The rank that a document of this fused score has among those a filter lets through, each by its best passage.

    Args:
        store: The build.
        query: The encoded query.
        score: As `FusedVector.score` of the stored vectors has it.
        parent_id: The document itself, which is not counted.
        filter: As for `Store.search`.
        may_go_on: Asked before each step; when it says no, the answer is what is known by then.

    Raises:
        StoreError: As `Store.search`.
    """
    higher: set[str] = set()
    points = store.count()
    for depth in DEPTHS:
        if not may_go_on():
            return Standing(1 + len(higher - {parent_id}), exact=False)
        higher, settled = _searched(store, query, score, depth, filter)
        if settled:
            return Standing(1 + len(higher - {parent_id}), exact=True)
        if depth >= points:
            break
    scanned, settled = _scanned(store, query, score, filter, may_go_on)
    return Standing(1 + len((higher | scanned) - {parent_id}), settled)


def _searched(store: Store, query: FusedVector, score: float, depth: int, filter: Filter | None) -> _Decided:
    """The documents that are higher as far as the best `depth` points of each side tell."""
    cls = _best(store.scored(query, "cls", limit=depth, filter=filter), depth, otherwise=-np.inf)
    ot = _best(store.scored(query, "ot", limit=depth, filter=filter), depth, otherwise=0.0)
    slack = TOLERANCE * (1.0 + abs(score) + float(np.linalg.norm(query.cls)))
    documents = cls.documents | ot.documents
    higher, undecided = set[str](), list[str]()
    for id, document in documents.items():
        least = cls.scores.get(id, -np.inf) + ot.scores.get(id, 0.0)
        most = cls.scores.get(id, cls.rest) + ot.scores.get(id, ot.rest)
        if least > score + slack:
            higher.add(document)
        elif most >= score - slack:
            undecided.append(id)
    if cls.rest + ot.rest >= score - slack or len(undecided) > MOST_FETCHED:
        return _Decided(higher, settled=False)
    return _Decided(higher | _higher(query, store.get(undecided), score), settled=True)


def _best(found: Sequence[Scored], depth: int, *, otherwise: float) -> _Best:
    """`otherwise` is what a point scores that is not found though there was room."""
    rest = min(point.score for point in found) if len(found) == depth else otherwise
    return _Best({point.id: point.score for point in found}, {point.id: point.parent_id for point in found}, rest)


def _scanned(
    store: Store,
    query: FusedVector,
    score: float,
    filter: Filter | None,
    may_go_on: Callable[[], bool],
) -> _Decided:
    """The documents that are higher by all points, each looked at."""
    higher = set[str]()
    points = store.scroll(filter=filter)
    while page := list(islice(points, PAGE)):
        if not may_go_on():
            return _Decided(higher, settled=False)
        higher |= _higher(query, page, score)
    return _Decided(higher, settled=True)


def _higher(query: FusedVector, points: Sequence[Point], score: float) -> set[str]:
    """The documents of those that score more."""
    scores = query.scores([point.vector for point in points])
    return {parent(point) for point, parts in zip(points, scores, strict=True) if parts.score > score}
