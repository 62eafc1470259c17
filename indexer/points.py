"""A passage as a stored point: which id it has and what is kept beside its vectors."""

import uuid
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from indexer.chunking import Passage
from indexer.documents import Document
from indexer.store import Chunking, Payload, Point
from model.vector import FusedVector

NAMESPACE = uuid.UUID("9ba32272-283c-4d2b-a87b-ccaf4f06ece9")
"""Of point ids. Another one would give every stored point another id."""


def point_id(document_id: str, chunk: int = 0) -> str:
    """The id of a stored passage: the same in every build, so that writing it twice replaces it.

    >>> point_id("gull")
    '5cd9d8a8-e438-5800-85a3-6285f2dcd694'
    """
    return str(uuid.uuid5(NAMESPACE, f"{chunk}:{document_id}"))


def make_points(document: Document, passages: Sequence[Passage], vectors: Sequence[FusedVector]) -> list[Point]:
    """A document as it is stored: one point for each passage, every one with all that is known of the document.

    Args:
        document: Parent of all the points.
        passages: Its passages, numbered from 0 without a gap.
        vectors: One for each.
    """
    content_hash = document.content_hash  # of the whole text, so once and not for each passage
    return [
        Point(
            id=point_id(document.id, passage.number),
            vector=vector,
            payload={
                "doc_id": document.id,
                "title": document.title,
                "text": document.text[passage.start : passage.end],
                "url": document.url,
                "metadata": dict(document.metadata),
                "parent_id": document.id,
                "chunk": passage.number,
                "chunks": len(passages),
                "start": passage.start,
                "end": passage.end,
                "content_hash": content_hash,
            },
        )
        for passage, vector in zip(passages, vectors, strict=True)
    ]


def read_point(id: object, vectors: Mapping[str, Any], payload: Payload | None) -> Point:
    """A point as an engine returned it.

    Args:
        id: The point's.
        vectors: `cls`, numbers; `ot`, an object with `indices` and `values`, which both engines' clients have.
        payload: What was stored beside them.
    """
    cls, ot = vectors["cls"], vectors["ot"]
    vector = FusedVector(np.array(cls, np.float32), np.array(ot.indices, np.int64), np.array(ot.values, np.float32))
    return Point(str(id), vector, payload or {})


class Place(NamedTuple):
    """Where a stored passage stands in its document.

    Attributes:
        number: Among the document's passages, from 0.
        of: How many the document has.
        start: Where it begins in the document's text, in characters.
        end: Where it ends there.
    """

    number: int
    of: int
    start: int
    end: int


def place(point: Point) -> Place:
    """Where a stored passage stands; a point of a build that knew no passages is the whole of its document."""
    stored: Mapping[str, Any] = point.payload
    end = stored.get("end", len(stored.get("text") or ""))
    return Place(stored.get("chunk", 0), stored.get("chunks", 1), stored.get("start", 0), end)


def passage_text(point: Point, chunking: Chunking | None) -> str:
    """The text a stored passage was encoded from: after its title, where the build's chunking has it there.

    A title that the encoder read only the beginning of is whole here.
    """
    titled = chunking is None or chunking.title or place(point).number == 0
    parts = ("title", "text") if titled else ("text",)
    return " ".join(str(point.payload[part]) for part in parts if point.payload.get(part))
