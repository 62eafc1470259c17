"""The exact fused score from the embedded engine, each of its two indexes asked once.

One nested request gives the same, and the Qdrant engine uses it, where a request is a journey. This engine runs a
prefetch again wherever it stands, which is both indexes twice; one to three short calls in one process take over a
third less time at 100,000 points (docs/benchmarks.md). The steps:

1. Each side brings its best `depth` points, in one call for both. Who is in both lists is scored.
2. Those that words alone have found get their [CLS] score, if it can matter: where every point was scanned, whoever is
   not among the best has at most the score of the last of them, and who stays below the best `limit` even so is left
   out. Where a graph was followed nothing bounds it: the graph may have missed them.
3. Those that [CLS] alone has found get their words' score, if it can matter in the same way. The words' index is exact.

Ids are kept as numbers in between: Python hashes and compares a `UUID` by its own slow means, some thousand times here.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from heapq import nlargest
from typing import Any, NamedTuple
from uuid import UUID

import qdrant_edge as edge

from indexer.edge_requests import by_ids, query_request
from indexer.filters import Clauses
from indexer.ranking import TIE
from indexer.store import Side
from model.vector import FusedVector

Scores = dict[int, float]
"""Of points, by the number of their id."""


class Sum(NamedTuple):
    """A candidate: its point's id and its fused score."""

    id: UUID
    score: float


def fused_candidates(
    shard: edge.EdgeShard, query: FusedVector, *, limit: int, depth: int, filter: Clauses | None, scan: bool
) -> list[Sum]:
    """Every point of either side's best `depth` that can be among the best `limit` of them, in no order.

    Args:
        shard: Is asked.
        query: The encoded query.
        limit: How many are wanted.
        depth: Candidates each side brings.
        filter: Bounds the points.
        scan: Whether [CLS] looks at every point, or else at those that the graph leads to.
    """
    cls, ot = _answers(shard, [query_request(query, side, depth, filter, scan=scan) for side in ("cls", "ot")])
    most_cls = min(cls.values()) if scan and len(cls) >= depth else math.inf
    most_ot = min(ot.values()) if len(ot) >= depth else 0.0  # else all who hold a word of the query are listed

    def asked(side: Side, ids: Collection[int]) -> Scores:
        return _answers(shard, [by_ids(query, side, {UUID(int=id) for id in ids})])[0] if ids else {}

    sums = {id: score + ot.get(id, 0.0) for id, score in cls.items()}  # nobody's words take anything from [CLS]
    open_ot = undecided(ot, cls, most=most_cls, least=surely_reached(sums.values(), limit))
    sums |= {id: score + ot[id] for id, score in asked("cls", open_ot).items()}
    least = surely_reached(sums.values(), limit)
    open_cls = undecided(cls, ot, most=most_ot, least=least)
    sums |= {id: cls[id] + score for id, score in asked("ot", open_cls if most_ot else ()).items()}
    return [Sum(UUID(int=id), score) for id, score in sums.items() if score >= least]


def undecided(listed: Mapping[int, float], other: Mapping[int, float], *, most: float, least: float) -> list[int]:
    """Those of `listed` that are not in `other` and can reach `least` when at most `most` is added to them.

    >>> undecided({1: 5.0, 2: 4.0, 3: 1.0}, {1: 2.0}, most=1.0, least=4.5)
    [2]
    """
    return [id for id, score in listed.items() if score + most >= least and id not in other]


def surely_reached(scores: Iterable[float], limit: int) -> float:
    """What the best `limit` of these score, less what rounding may have added."""
    best = nlargest(limit, scores)
    return best[-1] - 2 * TIE * max(1.0, abs(best[-1])) if len(best) == limit else -math.inf


def _answers(shard: edge.EdgeShard, requests: Sequence[edge.QueryRequest]) -> list[Scores]:
    answers: list[list[Any]] = shard.query_batch(edge.QueryBatchRequest(list(requests)))  # all ids are UUIDs
    return [{point.id.int: point.score for point in found} for found in answers]
