"""The exact fused score from the embedded engine, each of its two indexes asked once.

One nested request gives the same, and the Qdrant engine uses it, where a request is a journey. This engine runs a
prefetch again wherever it stands, which is both indexes twice; two to four short calls in one process take a third less
time at 100,000 points (docs/benchmarks.md). The steps:

1. Each side brings its best `depth` points. Who is in both lists is scored.
2. Those that words alone have found get their [CLS] score. Nothing bounds it: the graph may have missed them.
3. Those that [CLS] alone has found get their words' score, if it can matter. The words' index is exact, so whoever is
   not among its best has at most the score of the last of them; who stays below the best `limit` even so is left out.
"""

from collections.abc import Collection, Mapping
from heapq import nlargest
from typing import NamedTuple, TypeVar

import qdrant_edge as edge

from indexer.edge_requests import by_ids, query_request
from indexer.filters import Clauses
from indexer.ranking import TIE
from indexer.store import Side
from model.vector import FusedVector


class Sum(NamedTuple):
    """A candidate: its point's id and its fused score."""

    id: "edge.PointId"
    score: float


Id = TypeVar("Id")
Scores = dict["edge.PointId", float]


def fused_candidates(
    shard: edge.EdgeShard, query: FusedVector, *, limit: int, depth: int, filter: Clauses | None
) -> list[Sum]:
    """Every point of either side's best `depth` that can be among the best `limit` of them, in no order."""

    def best(side: Side, count: int) -> Scores:
        return _scores(shard.query(query_request(query, side, count, filter)))

    def scored(side: Side, ids: Collection["edge.PointId"]) -> Scores:
        return _scores(shard.query(by_ids(query, side, ids))) if ids else {}

    cls, ot = best("cls", depth), best("ot", depth)
    cls_of_the_rest = scored("cls", ot.keys() - cls.keys())
    sums = {id: score + ot[id] for id, score in (cls | cls_of_the_rest).items() if id in ot}
    lone = {id: score for id, score in cls.items() if id not in ot}
    most = min(ot.values()) if len(ot) >= depth else 0.0
    open_ = undecided(sums, lone, most=most, limit=limit)
    ot_of_the_open = scored("ot", open_) if most else {}
    sums |= {id: cls[id] + ot_of_the_open.get(id, 0.0) for id in open_}
    return [Sum(id, score) for id, score in sums.items()]


def undecided(sums: Mapping[Id, float], lone: Mapping[Id, float], *, most: float, limit: int) -> list[Id]:
    """Those of `lone` that can be among the best `limit` when something from 0 to `most` is added to them.

    >>> undecided({"a": 5.0, "b": 4.0}, {"c": 3.5, "d": 2.0}, most=1.0, limit=2)
    ['c']
    >>> undecided({"a": 5.0}, {"c": 3.5, "d": 2.0}, most=1.0, limit=2)
    ['c']
    >>> undecided({"a": 5.0}, {"c": 3.5, "d": 2.0}, most=1.0, limit=4)
    ['c', 'd']
    """
    surely = nlargest(limit, [*sums.values(), *lone.values()])
    if len(surely) < limit:
        return list(lone)
    least = surely[-1] - 2 * TIE * max(1.0, abs(surely[-1]))
    return [id for id, score in lone.items() if score + most >= least]


def _scores(found: list[edge.ScoredPoint]) -> Scores:
    return {point.id: point.score for point in found}
