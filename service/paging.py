"""Pages of one list: what a search finds at one depth, cut where a cursor says.

Each page finds the list anew from its beginning, so a server keeps nothing between two pages, and sees whether what it
showed before is still what comes first. The cost of a page grows with its offset, which the depth bounds.
"""

from typing import NamedTuple

from indexer.grouping import Wanted, parent
from indexer.store import Hit
from model.vector import FusedVector
from service.cursors import Cursor, CursorExpired, digest
from service.searcher import Searcher
from service.spans import span

NOTHING = digest([])
"""The hash of what was shown before the first page."""


class Page(NamedTuple):
    """One page.

    Attributes:
        hits: Best first.
        complete: Whether there are as many as were asked for, or no more to be had.
        following: Where the next page begins; None where nothing follows, or nothing that this depth reaches.
    """

    hits: list[Hit]
    complete: bool
    following: Cursor | None


def first_page(build: str, search: str, depth: int) -> Cursor:
    """Where every search begins."""
    return Cursor(build, search, depth, 0, NOTHING)


def page(searcher: Searcher, query: FusedVector, wanted: Wanted, at: Cursor, limit: int) -> Page:
    """The `limit` results that begin at a cursor.

    The first page may deepen the search until it is full; the others look exactly as deep, so that all are cut from the
    same list.

    Raises:
        CursorExpired: What stands before them is not what was shown.
        StoreError: As `Store.search`.
    """
    most = at.depth if at.offset else None
    with span("retrieve", mode=wanted.mode, depth=at.depth) as facts:
        found = searcher.retrieve(query, wanted, limit=at.offset + limit, depth=at.depth, most=most)
        facts |= {"depth": found.depth, "hits": len(found.hits)}
    if at.offset and _shown(found.hits[: at.offset], wanted) != at.shown:
        raise CursorExpired(
            f"the first {at.offset} results are no longer those that were shown: documents were written or deleted "
            "since; begin again without the cursor"
        )
    hits = found.hits[at.offset :]
    full = len(hits) == limit
    following = None
    if full and not found.ended:
        following = at._replace(depth=found.depth, offset=at.offset + limit, shown=_shown(found.hits, wanted))
    return Page(hits, full or found.ended, following)


def _shown(hits: list[Hit], wanted: Wanted) -> str:
    by_document = wanted.group_by == "document"
    return digest(parent(hit.point) if by_document else hit.point.id for hit in hits)
