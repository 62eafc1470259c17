"""What an engine may be given: refused here, with the document's name, before anything is written.

The engines would take NaN, zeros and repeated indices without a word and answer with wrong scores.
"""

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from uuid import UUID

import numpy as np

from indexer.store import Point, StoreError
from model.vector import FusedVector

MAX_DEPTH = 64
"""How deep metadata may be nested. The embedded engine stores any depth, but reads none beyond 126 again."""


def check_points(points: Iterable[Point], dense_dim: int) -> None:
    """Raise StoreError, naming the document, unless every point can be stored and scored."""
    for point in points:
        name = f"Document {point.payload.get('doc_id', point.id)!r}"
        check_point_ids([point.id])
        check_vector(point.vector, dense_dim, name)
        if any(map(is_too_deep, point.payload.values())):
            raise StoreError(f"{name} has metadata nested more than {MAX_DEPTH} deep.")
        try:
            json.dumps(point.payload, ensure_ascii=False, allow_nan=False).encode()
        except (TypeError, ValueError) as error:
            raise StoreError(f"{name} has a payload that is not JSON in UTF-8: {error}.") from error


def is_too_deep(value: object, levels: int = MAX_DEPTH) -> bool:
    """Whether more than so many objects and lists stand in each other.

    >>> is_too_deep({"tags": [{}]}, 3), is_too_deep({"tags": [{}]}, 2)
    (False, True)
    """
    if not isinstance(value, Mapping | list):
        return False
    inside = value.values() if isinstance(value, Mapping) else value
    return levels == 0 or any(is_too_deep(each, levels - 1) for each in inside)


def check_point_ids(ids: Iterable[str]) -> list[UUID]:
    """The ids; raise StoreError unless each is a UUID in its canonical spelling, which sorts as the engines sort."""
    uuids = []
    for id in ids:
        with suppress(ValueError):
            uuids.append(UUID(id))
        if not uuids or str(uuids[-1]) != id:
            raise StoreError(f"Point id {id!r} is not a UUID in lower case with hyphens.")
    return uuids


def check_vector(vector: FusedVector, dense_dim: int, name: str) -> None:
    """Raise StoreError, beginning with `name`, unless the vector keeps the contract of FusedVector."""
    if problem := vector_problem(vector, dense_dim):
        raise StoreError(f"{name} has {problem}; encode it again with the artifact of this build.")


def vector_problem(vector: FusedVector, dense_dim: int) -> str | None:
    """What breaks the contract of FusedVector, as the end of a sentence with "has"; None if nothing does."""
    indices, values = vector.ot_indices, vector.ot_values
    if vector.cls.shape != (dense_dim,):
        return f"a cls vector of shape {vector.cls.shape} where the build has {dense_dim} dimensions"
    if not np.isfinite(vector.cls).all():
        return "NaN or infinity in its cls vector"
    if indices.ndim != 1 or indices.shape != values.shape:
        return f"{indices.shape} OT indices for {values.shape} OT values"
    if indices.size == 0:
        return "an empty OT side"
    if not np.isfinite(values).all() or values.min() <= 0:
        return "OT values that are not finite and above 0"
    if indices[0] < 0 or indices[-1] >= 2**32 or (np.diff(indices) <= 0).any():
        return "OT indices that are not ascending, unique and within 32 bits"
    return None
