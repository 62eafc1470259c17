"""Vectors of an older build: a document that did not change is not encoded again."""

import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager, closing, nullcontext

from indexer.documents import Document
from indexer.points import point_id
from indexer.store import Build, Engine, Point, Store, StoreError, StoreUnavailable

LOGGER = logging.getLogger("dupmae.build")


def opened_base(engine: Engine, build: Build) -> AbstractContextManager[Store | None]:
    """The build that `build` may copy from, open, so that nobody writes to it; None where none can be read.

    Raises:
        StoreUnavailable: The store is away.
    """
    older = reusable(engine, build)
    if older is None:
        return nullcontext()
    try:
        return closing(engine.open(older.index, older.id))
    except StoreUnavailable:
        raise
    except StoreError as error:
        LOGGER.warning("nothing is copied from build %s: %s", older.id, error)
        return nullcontext()


def reusable(engine: Engine, build: Build) -> Build | None:
    """The newest ready build whose vectors `build` would get as well: of the same model and the same passages.

    One that failed its verification is passed over, and so is one from before there were passages, which has each
    document cut to what the model reads.
    """
    for older in engine.builds(build.index):
        alike = (older.fingerprint, older.chunking) == (build.fingerprint, build.chunking)
        if older.state == "ready" and older.passages and not older.reason and alike and older.id != build.id:
            return older
    return None


def unchanged(store: Store, documents: Sequence[Document]) -> dict[str, list[Point]]:
    """All points of each document that the store holds whole and as it is now, by document id.

    A document of which a point is missing counts as changed, so that a new build mends what an old one lost.
    """
    hashes = {document.id: document.content_hash for document in documents}
    points = {
        str(point.payload["doc_id"]): [point]
        for point in store.get([point_id(document) for document in hashes])
        if point.payload.get("content_hash") == hashes[str(point.payload["doc_id"])]
    }
    more = [point_id(id, chunk) for id, (first,) in points.items() for chunk in range(1, _passages(first))]
    for point in store.get(more) if more else []:
        points[str(point.payload["doc_id"])].append(point)
    return {
        id: found
        for id, found in points.items()
        if len(found) == _passages(found[0]) and all(each.payload["content_hash"] == hashes[id] for each in found)
    }


def _passages(point: Point) -> int:
    count = point.payload.get("chunks", 1)
    assert isinstance(count, int), count
    return count
