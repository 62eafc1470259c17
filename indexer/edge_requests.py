"""Our queries and filters in the words of qdrant-edge.

Names that only its stubs define (`ConditionType`, `MatchType`, `PointId`) stand in quotes.
"""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import qdrant_edge as edge

from indexer import filters
from indexer.geo import GeoBox, GeoPolygon, GeoRadius, Place
from indexer.store import Side
from model.vector import FusedVector

RESCORED = edge.SearchParams(quantization=edge.QuantizationSearchParams(rescore=True, oversampling=2.0))
"""Where the dense side is quantized: twice as many candidates, scored again with the stored vectors."""

EXACT = edge.SearchParams(exact=True, quantization=edge.QuantizationSearchParams(ignore=True))
"""Every point is scored with its stored vectors."""


def query_request(
    query: FusedVector, side: Side, depth: int, filter: filters.Clauses | None, *, scan: bool
) -> edge.QueryRequest:
    """Ask for ids and scores of the best points by one side, of all points if they shall be scanned."""
    where = edge_filter(filter) if filter else None
    return edge.QueryRequest(limit=depth, query=_nearest(query, side), filter=where, params=EXACT if scan else RESCORED)


def by_ids(query: FusedVector, side: Side, ids: Collection["edge.PointId"]) -> edge.QueryRequest:
    """Ask for the scores of these points by one side; by words, of those that hold one of the query's."""
    where = edge.Filter(must=[edge.HasIdCondition(set(ids))])
    return edge.QueryRequest(limit=len(ids), query=_nearest(query, side), filter=where, params=EXACT)


def scored_request(query: FusedVector, side: Side, limit: int, filter: filters.Clauses | None) -> edge.QueryRequest:
    """Ask for the best points by one side, exactly, with no more of each than the id of its document."""
    return edge.QueryRequest(
        limit=limit,
        query=_nearest(query, side),
        filter=edge_filter(filter) if filter else None,
        params=EXACT,
        with_payload=["parent_id"],
    )


def _nearest(query: FusedVector, side: Side) -> edge.Query:
    vector: Any = query.cls.tolist() if side == "cls" else sparse_vector(query)
    return edge.Query.Nearest(vector, using=side)


def sparse_vector(vector: FusedVector) -> edge.SparseVector:
    """The OT side."""
    return edge.SparseVector(vector.ot_indices.tolist(), vector.ot_values.tolist())


def edge_filter(clauses: filters.Clauses) -> edge.Filter:
    """A checked filter. Inside a nested one the engine takes an empty `should` for one that nothing fulfils."""
    return edge.Filter(
        must=_conditions(clauses.must),
        should=_conditions(clauses.should) or None,
        must_not=_conditions(clauses.must_not),
        min_should=edge.MinShould(_conditions(clauses.min_should), clauses.min_count) if clauses.min_should else None,
    )


def _conditions(conditions: Sequence[filters.Condition]) -> list["edge.ConditionType"]:
    return [_condition(condition) for condition in conditions]


def _condition(condition: filters.Condition) -> "edge.ConditionType":
    match condition:
        case filters.Match():
            return edge.FieldCondition(condition.key, match=_match(condition))
        case filters.NumberRange(key, bounds):
            return edge.FieldCondition(key, range=edge.RangeFloat(**bounds))
        case filters.DatetimeRange(key, bounds):
            instants = {bound: instant.isoformat() for bound, instant in bounds.items()}
            return edge.FieldCondition(key, range=edge.RangeDateTime(**instants))
        case GeoRadius(key, center, radius):
            return edge.FieldCondition(key, geo_radius=edge.GeoRadius(edge.GeoPoint(*center), radius))
        case GeoBox(key, top_left, bottom_right):
            box = edge.GeoBoundingBox(edge.GeoPoint(*top_left), edge.GeoPoint(*bottom_right))
            return edge.FieldCondition(key, geo_bounding_box=box)
        case GeoPolygon(key, exterior, interiors):
            polygon = edge.GeoPolygon(_ring(exterior), [_ring(ring) for ring in interiors])
            return edge.FieldCondition(key, geo_polygon=polygon)
        case filters.ValuesCount(key, counts):
            return edge.FieldCondition(key, values_count=edge.ValuesCount(**counts))
        case filters.Nested(key, clauses):
            return edge.NestedCondition(key, edge_filter(clauses))
        case filters.IsEmpty(key):
            return edge.IsEmptyCondition(key)
        case filters.IsNull(key):
            return edge.IsNullCondition(key)
        case filters.HasId(ids):
            return edge.HasIdCondition(set(ids))
        case filters.Clauses():
            return edge_filter(condition)


def _ring(places: Sequence[Place]) -> list[edge.GeoPoint]:
    return [edge.GeoPoint(*place) for place in places]


def _match(condition: filters.Match) -> "edge.MatchType":
    values: list[Any] = list(condition.values)
    match condition.kind:
        case "any":
            return edge.MatchAny(values)
        case "except":
            return edge.MatchExcept(values)
        case "text":
            return edge.MatchText(values[0])
        case "text_any":
            return edge.MatchTextAny(values[0])
        case "value":
            # qdrant-edge 0.9 reads Python's True as the integer 1, which no boolean equals; numpy's it reads rightly.
            value: Any = np.bool_(values[0]) if isinstance(values[0], bool) else values[0]
            return edge.MatchValue(value)
