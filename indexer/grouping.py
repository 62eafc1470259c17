"""From passages to documents: the best passage of each, in the order of their scores.

Engines group differently or not at all, so it is done here, over hits that are in their final order. How many passages
hold the wanted documents is not known beforehand, so twice as many are asked for until they do.
"""

from collections.abc import Iterable
from typing import Literal, NamedTuple

from indexer.store import DEFAULT_DEPTH, Build, Filter, Hit, Mode, Point, Store
from model.vector import FusedVector

GroupBy = Literal["document", "passage"]

MOST_PASSAGES = 8192
"""Passages looked at for one answer, unless more documents are wanted: they are fetched with their vectors."""


class Grouped(NamedTuple):
    """What a search found.

    Attributes:
        hits: Best first.
        complete: Whether there are as many as were asked for, or no more to be had. Else the bound on passages was
            reached first, and documents may be missing at the end.
    """

    hits: list[Hit]
    complete: bool = True


def grouped_hits(
    store: Store,
    query: FusedVector,
    *,
    mode: Mode = "fused",
    limit: int = 10,
    depth: int = DEFAULT_DEPTH,
    filter: Filter | None = None,
) -> Grouped:
    """The best `limit` documents, each by its best passage.

    Args:
        store: The build to search.
        query: The encoded query.
        mode: As for `Store.search`, whose arguments and errors these are.
        limit: Documents to return.
        depth: Candidates each side brings; raised to the number of passages that is looked at.
        filter: Bounds the passages.
    """
    most = max(limit, MOST_PASSAGES)
    looked_at = min(limit * passages_per_document(store.build), most)
    while True:
        hits = store.search(query, mode=mode, limit=looked_at, depth=depth, filter=filter)
        best = best_of_each(hits)[:limit]
        exhausted = len(hits) < looked_at
        if len(best) == limit or exhausted or looked_at == most:
            return Grouped(best, len(best) == limit or exhausted)
        looked_at = min(2 * looked_at, most)


def passages_per_document(build: Build) -> int:
    """The mean, rounded up; 1 for a build in which every document is one passage, which grouping costs nothing."""
    return max(1, -(-build.passages // max(build.documents, 1)))


def best_of_each(hits: Iterable[Hit]) -> list[Hit]:
    """The first hit of each document."""
    first: dict[str, Hit] = {}
    for hit in hits:
        first.setdefault(parent(hit.point), hit)
    return list(first.values())


def parent(point: Point) -> str:
    """The id of the document that a point is a passage of; its own in a build that knew no passages."""
    return str(point.payload.get("parent_id", point.id))
