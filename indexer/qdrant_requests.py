"""Our queries and filters in the words of qdrant-client."""

import json
from collections.abc import Iterator, Sequence

from qdrant_client import models

from indexer import filters
from indexer.geo import GeoBox, GeoPolygon, GeoRadius, Place
from indexer.ranking import Scoring
from indexer.store import Point
from model.vector import FusedVector

FULL_SCORE = models.FormulaQuery(
    formula=models.SumExpression(sum=["$score[0]", "$score[1]"]), defaults={"$score[0]": 0.0, "$score[1]": 0.0}
)
"""The sum of both prefetches; a point that one of them lacks (no word in common) gets 0 from it."""

RESCORED = models.SearchParams(quantization=models.QuantizationSearchParams(rescore=True, oversampling=2.0))
"""Where the dense side is quantized: twice as many candidates, scored again with the stored vectors."""

STORED = models.SearchParams(quantization=models.QuantizationSearchParams(ignore=True))
"""The score that is returned is that of the stored vectors alone."""

EXACT = models.SearchParams(exact=True, quantization=models.QuantizationSearchParams(ignore=True))
"""Every point is scored with its stored vectors."""

BATCH_BYTES = 2**24
"""Half of what the server takes in one request, 32 MB, unless it was told otherwise."""

CHARS_A_NUMBER = 24
"""More than any number of a vector takes as text, its comma included."""


def upsert_batches(points: Sequence[Point]) -> Iterator[list[Point]]:
    """Points in their order, cut so that each batch is a request the server takes; a point is never cut."""
    batch, size = list[Point](), 0
    for point in points:
        bytes = _bytes(point)
        if batch and size + bytes > BATCH_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(point)
        size += bytes
    if batch:
        yield batch


def query_request(
    query: FusedVector, scoring: Scoring, depth: int, filter: filters.Clauses | None
) -> models.QueryRequest:
    """Ask for ids and scores of the candidates.

    `fused` is exact in one request: each side brings its best `depth` points, then each side scores all of them. The
    filter stands at the root and the engine applies it to every prefetch.
    """
    where = qdrant_filter(filter) if filter else None
    cls, ot = query.cls.tolist(), sparse_vector(query)
    if scoring != "fused":
        side = cls if scoring == "cls" else ot
        return models.QueryRequest(query=side, using=scoring, limit=depth, filter=where, params=RESCORED)
    union = [
        models.Prefetch(query=cls, using="cls", limit=depth, params=RESCORED),
        models.Prefetch(query=ot, using="ot", limit=depth),
    ]
    both = [
        models.Prefetch(query=cls, using="cls", limit=2 * depth, prefetch=union, params=STORED),
        models.Prefetch(query=ot, using="ot", limit=2 * depth, prefetch=union, params=STORED),
    ]
    return models.QueryRequest(query=FULL_SCORE, prefetch=both, limit=2 * depth, filter=where)


def sparse_vector(vector: FusedVector) -> models.SparseVector:
    """The OT side."""
    return models.SparseVector(indices=vector.ot_indices.tolist(), values=vector.ot_values.tolist())


def _bytes(point: Point) -> int:
    """At most so many as JSON: here every character outside ASCII is escaped."""
    numbers = len(point.vector.cls) + 2 * len(point.vector.ot_indices)
    return CHARS_A_NUMBER * numbers + len(json.dumps(point.payload))


def qdrant_filter(clauses: filters.Clauses) -> models.Filter:
    """A checked filter."""
    min_should = models.MinShould(conditions=_conditions(clauses.min_should), min_count=clauses.min_count)
    return models.Filter(
        must=_conditions(clauses.must),
        should=_conditions(clauses.should) or None,
        must_not=_conditions(clauses.must_not),
        min_should=min_should if clauses.min_should else None,
    )


def _conditions(conditions: Sequence[filters.Condition]) -> list[models.Condition]:
    return [_condition(condition) for condition in conditions]


def _condition(condition: filters.Condition) -> models.Condition:
    match condition:
        case filters.Match():
            return models.FieldCondition(key=condition.key, match=_match(condition))
        case filters.NumberRange(key, bounds):
            return models.FieldCondition(key=key, range=models.Range(**bounds))
        case filters.DatetimeRange(key, bounds):
            return models.FieldCondition(key=key, range=models.DatetimeRange(**bounds))
        case GeoRadius(key, center, radius):
            return models.FieldCondition(key=key, geo_radius=models.GeoRadius(center=_point(center), radius=radius))
        case GeoBox(key, top_left, bottom_right):
            box = models.GeoBoundingBox(top_left=_point(top_left), bottom_right=_point(bottom_right))
            return models.FieldCondition(key=key, geo_bounding_box=box)
        case GeoPolygon(key, exterior, interiors):
            polygon = models.GeoPolygon(exterior=_ring(exterior), interiors=[_ring(ring) for ring in interiors])
            return models.FieldCondition(key=key, geo_polygon=polygon)
        case filters.ValuesCount(key, counts):
            return models.FieldCondition(key=key, values_count=models.ValuesCount(**counts))
        case filters.Nested(key, clauses):
            return models.NestedCondition(nested=models.Nested(key=key, filter=qdrant_filter(clauses)))
        case filters.IsEmpty(key):
            return models.IsEmptyCondition(is_empty=models.PayloadField(key=key))
        case filters.IsNull(key):
            return models.IsNullCondition(is_null=models.PayloadField(key=key))
        case filters.HasId(ids):
            return models.HasIdCondition(has_id=list(ids))
        case filters.Clauses():
            return qdrant_filter(condition)


def _ring(places: Sequence[Place]) -> models.GeoLineString:
    return models.GeoLineString(points=[_point(place) for place in places])


def _point(place: Place) -> models.GeoPoint:
    return models.GeoPoint(lon=place.lon, lat=place.lat)


def _match(condition: filters.Match) -> models.Match:
    match condition.kind:
        case "any":
            return models.MatchAny.model_validate({"any": condition.values})
        case "except":
            return models.MatchExcept.model_validate({"except": condition.values})
        case "text":
            return models.MatchText(text=str(condition.values[0]))
        case "text_any":
            return models.MatchTextAny(text_any=str(condition.values[0]))
        case "value":
            return models.MatchValue(value=condition.values[0])
