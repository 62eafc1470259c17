"""From the journal into a build: the last write of each document, encoded and stored.

Doing it twice changes nothing, so after a crash it is simply done again from the last position that was saved.
"""

import logging
from collections.abc import Sequence
from itertools import islice

from pydantic import JsonValue

from indexer.documents import Document
from indexer.journal import Journal
from indexer.points import make_point
from indexer.store import Build, Point, Store
from model.encoder import Encoder, EncodingError

LOGGER = logging.getLogger("dupmae.journal")

WINDOW = 64
"""Writes that are encoded and stored at once."""


def replay(store: Store, encoder: Encoder, journal: Journal, since: int) -> int:
    """Bring a build up to date with the journal of its index.

    A document that this model cannot encode is taken out of the build, and logged.

    Args:
        store: The build, open for writing.
        encoder: Made its vectors.
        journal: Of its index.
        since: Position up to which the build has read.

    Returns:
        The position it has read to now, durably.

    Raises:
        StoreError: The engine failed, or the journal is damaged.
    """
    newest = {write.document_id: position for position, write in journal.since(since)}
    writes = (write for position, write in journal.since(since) if newest.get(write.document_id) == position)
    while window := list(islice(writes, WINDOW)):
        points, refused = _encode_all(encoder, [write.document for write in window if write.document])
        if refused:
            LOGGER.warning("index %r: the model cannot encode %s; not in this build", store.build.index, refused)
        store_points(store, [write.document_id for write in window], points)
    store.flush()
    return max(newest.values(), default=since)


def replayed_facts(store: Store, build: Build, position: int) -> Build:
    """The facts of a build that has read the journal up to `position`, its points counted."""
    return build.model_copy(
        update={"journal": position, "documents": store.count_documents(), "passages": store.count()}
    )


def encode(encoder: Encoder, documents: Sequence[Document]) -> list[Point]:
    """The points of documents, whose vectors this encoder makes.

    Raises:
        EncodingError: Some documents have no vector.
    """
    encodings = encoder.encode_documents([document.passage for document in documents])
    return [make_point(document, encoding.vector) for document, encoding in zip(documents, encodings, strict=True)]


def _encode_all(encoder: Encoder, documents: Sequence[Document]) -> tuple[list[Point], list[str]]:
    """The points of the documents that have any, and the ids of the others."""
    refused: list[str] = []
    while documents:
        try:
            return encode(encoder, documents), refused
        except EncodingError as error:
            refused += [documents[position].id for position in error.positions]
            documents = [document for document in documents if document.id not in refused]
    return [], refused


def store_points(store: Store, document_ids: Sequence[str], points: Sequence[Point]) -> None:
    """Let `points` be all that is stored of these documents. New points come first: no reader finds a gap."""
    if points:
        store.upsert(points)
    rest: dict[str, JsonValue] = {"must": [{"key": "parent_id", "match": {"any": [*document_ids]}}]}
    if points:
        rest["must_not"] = [{"has_id": [point.id for point in points]}]
    store.delete_where(rest)
