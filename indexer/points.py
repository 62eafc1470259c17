"""A document as a stored point: which id it has and what is kept beside its vectors."""

import uuid
from collections.abc import Mapping
from typing import Any

import numpy as np

from indexer.documents import Document
from indexer.store import Payload, Point
from model.vector import FusedVector

NAMESPACE = uuid.UUID("9ba32272-283c-4d2b-a87b-ccaf4f06ece9")
"""Of point ids. Another one would give every stored point another id."""


def point_id(document_id: str, chunk: int = 0) -> str:
    """The id of a stored passage: the same in every build, so that writing it twice replaces it.

    >>> point_id("gull")
    '5cd9d8a8-e438-5800-85a3-6285f2dcd694'
    """
    return str(uuid.uuid5(NAMESPACE, f"{chunk}:{document_id}"))


def make_point(document: Document, vector: FusedVector) -> Point:
    """A document of one passage as it is stored; it is its own parent."""
    return Point(
        id=point_id(document.id),
        vector=vector,
        payload={
            "doc_id": document.id,
            "title": document.title,
            "text": document.text,
            "url": document.url,
            "metadata": dict(document.metadata),
            "parent_id": document.id,
            "chunk": 0,
            "content_hash": document.content_hash,
        },
    )


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


def passage(point: Point) -> str:
    """The text a stored passage was encoded from."""
    return " ".join(str(point.payload[part]) for part in ("title", "text") if point.payload.get(part))
