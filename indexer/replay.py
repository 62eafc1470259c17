"""From the journal into a build: the last write of each document, encoded and stored.

Doing it twice changes nothing, so after a crash it is simply done again from the last position that was saved.
"""

import logging
from collections.abc import Sequence
from itertools import islice

from pydantic import JsonValue

from indexer.chunking import Chunker
from indexer.encoding import encode_passages
from indexer.journal import Journal, Write
from indexer.reuse import unchanged
from indexer.store import Build, Point, Store, StoreError, StoreUnavailable

LOGGER = logging.getLogger("dupmae.journal")

WINDOW = 64
"""Writes that are encoded and stored at once."""


def replay(store: Store, chunker: Chunker, journal: Journal, since: int, base: Store | None = None) -> int:
    """Bring a build up to date with the journal of its index.

    A document that this model cannot encode, or the store cannot hold, is taken out of the build, and logged.

    Args:
        store: The build, open for writing.
        chunker: Cut its documents, with the encoder of its vectors.
        journal: Of its index.
        since: Position up to which the build has read.
        base: Another build of the same vectors; what it holds unchanged is copied from it, not encoded.

    Returns:
        The position it has read to now, durably.

    Raises:
        StoreError: The engine failed, or the journal is damaged.
    """
    newest = {write.document_id: position for position, write in journal.since(since)}
    writes = (write for position, write in journal.since(since) if newest.get(write.document_id) == position)
    while window := list(islice(writes, WINDOW)):
        _store_writes(store, chunker, window, base)
    store.flush()
    return max(newest.values(), default=since)


def replayed_facts(store: Store, build: Build, position: int) -> Build:
    """The facts of a build that has read the journal up to `position`, its points counted."""
    return build.model_copy(
        update={"journal": position, "documents": store.count_documents(), "passages": store.count()}
    )


def _store_writes(store: Store, chunker: Chunker, writes: Sequence[Write], base: Store | None) -> None:
    """Store the outcome of some writes to different documents."""
    documents = [write.document for write in writes if write.document]
    points = unchanged(base, documents) if base and documents else {}
    encoded = encode_passages(chunker, [document for document in documents if document.id not in points])
    for document, reason in encoded.refused:
        _log_left_out(store, document.id, reason)
    points |= {document.document.id: document.points for document in encoded.documents}
    try:
        store_points(
            store, [write.document_id for write in writes], [point for some in points.values() for point in some]
        )
    except StoreUnavailable:
        raise
    except StoreError:
        for write in writes:
            _store_alone(store, write.document_id, points.get(write.document_id, []))


def _store_alone(store: Store, document_id: str, points: Sequence[Point]) -> None:
    """Store one document or leave it out; a store that does not take its deletion either is itself the trouble."""
    try:
        store_points(store, [document_id], points)
    except StoreUnavailable:
        raise
    except StoreError as error:
        store_points(store, [document_id], [])
        _log_left_out(store, document_id, str(error))


def _log_left_out(store: Store, document_id: str, reason: str) -> None:
    LOGGER.warning("index %r: document %r is not in this build: %s", store.build.index, document_id, reason)


def store_points(store: Store, document_ids: Sequence[str], points: Sequence[Point]) -> None:
    """Let `points` be all that is stored of these documents. New points come first: no reader finds a gap."""
    if points:
        store.upsert(points)
    rest: dict[str, JsonValue] = {"must": [{"key": "parent_id", "match": {"any": [*document_ids]}}]}
    if points:
        rest["must_not"] = [{"has_id": [point.id for point in points]}]
    store.delete_where(rest)
