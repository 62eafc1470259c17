"""Search without an index: the fused score of a query against every stored point, in numpy.

It is what an engine's answers are compared with. Time grows with the number of points; memory is that of all vectors
for `ExactScores`, and that of some thousand for `best_scores`, which passes over the points once for all queries.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from indexer.store import Hit, Point
from model.vector import FusedVector

CHUNK = 4096
"""Points whose vectors `best_scores` holds at once."""

TOLERANCE = 1e-4
"""Scores that differ by less are a tie: an engine's arithmetic and numpy's do not agree to the last bit."""


class ExactScores:
    """The vectors of all points, held for scoring.

    Attributes:
        row: Position of each point in the arrays that `parts` returns, by point id.
    """

    def __init__(self, points: Iterable[Point]) -> None:
        vectors: list[FusedVector] = []
        self.row: dict[str, int] = {}
        for point in points:
            self.row[point.id] = len(vectors)
            vectors.append(point.vector)
        self._dense = np.stack([vector.cls for vector in vectors])
        terms = np.concatenate([vector.ot_indices for vector in vectors])
        order = np.argsort(terms, kind="stable")
        self._terms = terms[order]
        self._values = np.concatenate([vector.ot_values for vector in vectors])[order]
        self._rows = np.repeat(np.arange(len(vectors)), [len(vector.ot_indices) for vector in vectors])[order]

    def parts(self, query: FusedVector) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The CLS and the OT part of the score of every point, each (points,)."""
        ot = np.zeros(len(self.row))
        starts = np.searchsorted(self._terms, query.ot_indices, side="left")
        stops = np.searchsorted(self._terms, query.ot_indices, side="right")
        for start, stop, weight in zip(starts, stops, query.ot_values.astype(np.float64), strict=True):
            ot[self._rows[start:stop]] += weight * self._values[start:stop]  # a point has each term once
        return (self._dense @ query.cls).astype(np.float64), ot


def best_scores(points: Iterable[Point], queries: Sequence[FusedVector], limit: int = 10) -> NDArray[np.float64]:
    """The highest exact scores of each query over all points, in memory that does not grow with them.

    Returns:
        (queries, limit), descending; -inf where there are fewer points.
    """
    best = np.full((len(queries), limit), -np.inf)
    for chunk in _chunks(points):
        exact = ExactScores(chunk)
        for row, query in zip(best, queries, strict=True):
            cls, ot = exact.parts(query)
            row[:] = np.sort(np.concatenate([row, cls + ot]))[: -limit - 1 : -1]
    return best


class Agreement(NamedTuple):
    """How an engine's hits for one query compare with exact scores of all points.

    Attributes:
        overlap: Share of the hits that belong to the best points, those that tie with the last of them included.
        same_order: Whether the hits are ranked as the exact scores rank, up to ties.
        score_error: Largest difference between a hit's score and its exact one.
        part_error: The same for a part.
        parts_gap: Largest difference between a hit's score and the sum of its parts.
    """

    overlap: float
    same_order: bool
    score_error: float
    part_error: float
    parts_gap: float


def compare(exact: ExactScores, query: FusedVector, hits: Sequence[Hit], limit: int = 10) -> Agreement:
    """Hold the first `limit` fused hits against exact scores; at least one hit is needed."""
    cls, ot = exact.parts(query)
    scores = cls + ot
    best = np.sort(scores)[::-1][:limit]
    rows = [exact.row[hit.point.id] for hit in hits[:limit]]
    found = scores[rows]
    given = np.array([hit.score for hit in hits[:limit]])
    parts = np.array([hit.parts for hit in hits[:limit]])
    return Agreement(
        overlap=float((found >= best[-1] - TOLERANCE).sum() / len(best)),
        same_order=len(found) == len(best) and bool(np.allclose(found, best, rtol=0, atol=TOLERANCE)),
        score_error=float(np.abs(given - found).max()),
        part_error=float(np.abs(parts - np.stack([cls[rows], ot[rows]], axis=1)).max()),
        parts_gap=float(np.abs(given - parts.sum(axis=1)).max()),
    )


def _chunks(points: Iterable[Point]) -> Iterator[list[Point]]:
    stream = iter(points)
    while chunk := list(islice(stream, CHUNK)):
        yield chunk
