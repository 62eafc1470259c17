"""A document as a stored point: which id it has and what is kept beside its vectors."""

import uuid

from indexer.documents import Document
from indexer.store import Point
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
