"""From passages to documents: the best passage of each, in the order of their scores.

Engines group differently or not at all, so it is done here, over hits that are in their final order. How many passages
hold the wanted documents is not known beforehand, so twice as many are asked for until they do.

At one depth a search has one list of hits, and a smaller limit gives its beginning: that is what pages rest on. So the
depth is raised only where `limit` cannot be reached without.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from math import ceil, inf
from typing import Literal, NamedTuple

from indexer.store import DEFAULT_DEPTH, Build, Filter, Hit, Mode, Point, Store
from model.vector import FusedVector

GroupBy = Literal["document", "passage"]

MOST_PASSAGES = 8192
"""Passages looked at for one answer, unless more documents are wanted: they are fetched with their vectors."""

FEW = 4
"""Passages looked at beyond what the mean lets expect: in the demo's index, 98 of 100 answers of ten documents then
need no second search."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which hits are wanted, in which order.

    Attributes:
        mode: As for `Store.search`.
        filter: Bounds the passages.
        group_by: Each document once, by its best passage, or every passage by itself.
        min_score: Hits that score less are left out.
    """

    mode: Mode = "fused"
    filter: Filter | None = None
    group_by: GroupBy = "document"
    min_score: float | None = None


class Grouped(NamedTuple):
    """What a search found.

    Attributes:
        hits: Best first.
        complete: Whether there are as many as were asked for, or no more to be had. Else the bound on passages was
            reached first, and documents may be missing at the end.
        ended: Whether nothing follows these.
        depth: Candidates that each side brought.
    """

    hits: list[Hit]
    complete: bool
    ended: bool
    depth: int


def grouped_hits(
    store: Store,
    query: FusedVector,
    wanted: Wanted = Wanted(),
    *,
    limit: int = 10,
    depth: int = DEFAULT_DEPTH,
    most: int | None = None,
) -> Grouped:
    """The best `limit` documents or passages.

    Args:
        store: The build to search.
        query: The encoded query.
        wanted: Which.
        limit: Hits to return.
        depth: Candidates each side brings; raised to the number of passages that is looked at.
        most: Passages looked at; `MOST_PASSAGES`, or `limit` where that is more, unless given.

    Raises:
        StoreError: As `Store.search`.
    """
    most = most or max(limit, MOST_PASSAGES)
    usual = partial(usual_passages, store.build) if wanted.group_by == "document" else int
    looked_at = min(max(usual(limit), min(usual(limit + 1), depth)), most)
    least = -inf if wanted.min_score is None else wanted.min_score
    while True:
        hits = store.search(query, mode=wanted.mode, limit=looked_at, depth=depth, filter=wanted.filter)
        ended = len(hits) < looked_at or hits[-1].score < least
        best = [hit for hit in hits if hit.score >= least]
        if wanted.group_by == "document":
            best = best_of_each(best)
        enough = len(best) > limit or (len(best) == limit and looked_at >= depth)
        if enough or ended or looked_at == most:
            complete = len(best) >= limit or ended
            return Grouped(best[:limit], complete, ended and len(best) <= limit, max(depth, looked_at))
        looked_at = min(2 * looked_at, most if looked_at >= depth else min(depth, most))


def usual_passages(build: Build, documents: int) -> int:
    """How many of the best passages usually hold so many documents.

    Of those that share a document with a better one there are twice as many as the mean says, and a few more, since
    what matches in a document stands together; but no more than if every document had the mean, rounded up.
    """
    mean = max(1.0, build.passages / max(build.documents, 1))
    shared = ceil(2 * documents * (mean - 1)) + FEW if mean > 1 else 0
    return min(documents + shared, documents * ceil(mean))


def best_of_each(hits: Iterable[Hit]) -> list[Hit]:
    """The first hit of each document."""
    first: dict[str, Hit] = {}
    for hit in hits:
        first.setdefault(parent(hit.point), hit)
    return list(first.values())


def parent(point: Point) -> str:
    """The id of the document that a point is a passage of; its own in a build that knew no passages."""
    return str(point.payload.get("parent_id", point.id))
