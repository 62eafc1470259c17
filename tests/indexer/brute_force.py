"""What every engine must answer, computed the plain way: score everything, sort, cut."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from types import MappingProxyType

import numpy as np
from numpy.random import Generator

from indexer.points import point_id
from indexer.store import Build, FieldType, Hit, Mode, Payload, Point
from model.vector import FusedVector, Parts

DENSE_DIM = 16
VOCABULARY = 200


class BruteForce:
    """A store without an engine."""

    def __init__(self, points: Iterable[Point]) -> None:
        self.points = {point.id: point for point in points}

    def search(
        self,
        query: FusedVector,
        mode: Mode = "fused",
        limit: int = 10,
        depth: int = 200,
        keep: Callable[[Payload], bool] = lambda _: True,
    ) -> list[tuple[str, Parts]]:
        parts = {point.id: query.score(point.vector) for point in self.points.values() if keep(point.payload)}
        cls = {id: Parts(both.cls, 0.0) for id, both in parts.items()}
        ot = {id: Parts(0.0, both.ot) for id, both in parts.items() if both.ot > 0}
        if mode == "rrf":
            ranks = [{id: i for i, (id, _) in enumerate(best(side)[:depth], start=1)} for side in (cls, ot)]
            reciprocal = [{id: 1 / (60 + rank) for id, rank in side.items()} for side in ranks]
            found = ranks[0].keys() | ranks[1].keys()
            return best({id: Parts(reciprocal[0].get(id, 0.0), reciprocal[1].get(id, 0.0)) for id in found})[:limit]
        return best({"fused": parts, "cls": cls, "ot": ot}[mode])[:limit]


def best(parts: dict[str, Parts]) -> list[tuple[str, Parts]]:
    return sorted(parts.items(), key=lambda item: (-item[1].score, item[0]))


def assert_same_hits(hits: Sequence[Hit], expected: Sequence[tuple[str, Parts]]) -> None:
    """Same ids in the same order, same scores, same parts."""
    assert [hit.point.id for hit in hits] == [id for id, _ in expected]
    for hit, (_, parts) in zip(hits, expected, strict=True):
        np.testing.assert_allclose(hit.parts, parts, atol=1e-4)
        assert hit.score == hit.parts.cls + hit.parts.ot


def assert_equal_points(one: Point, two: Point) -> None:
    assert (one.id, one.payload) == (two.id, two.payload)
    np.testing.assert_array_equal(one.vector.cls, two.vector.cls)
    np.testing.assert_array_equal(one.vector.ot_indices, two.vector.ot_indices)
    np.testing.assert_array_equal(one.vector.ot_values, two.vector.ot_values)


def random_vector(rng: Generator, kept: int = 12) -> FusedVector:
    return FusedVector(
        rng.normal(size=DENSE_DIM).astype(np.float32),
        np.sort(rng.choice(VOCABULARY, kept, replace=False)).astype(np.int64),
        rng.gamma(2.0, 1.0, kept).astype(np.float32) + np.float32(0.01),
    )


def numbered_point(number: int, vector: FusedVector) -> Point:
    """A point whose payload follows from its number."""
    metadata: Payload = {
        "lang": "en" if number % 2 else "de",
        "tens": number % 10,
        "hundreds": number % 100,
        "price": number / 4,
        "open": number % 3 == 0,
        "when": datetime(2026, 1, 1 + number % 28, tzinfo=UTC).isoformat(),
        "tags": ["t"] * (number % 4),
        "at": {"lon": float(number), "lat": float(number)},
        "items": [{"name": f"i{number % 3}", "size": number % 2}, {"name": "other", "size": 2}],
        "note": f"Gull number_{number % 7}, seen twice" if number % 5 else None,
    }
    if number % 4 == 0:
        del metadata["price"]
    payload: Payload = {"doc_id": f"d{number}", "parent_id": f"p{number // 2}", "metadata": metadata}
    return Point(point_id(f"d{number}"), vector, payload)


def nested(depth: int) -> Payload:
    """Objects in each other, so many."""
    return {"in": nested(depth - 1)} if depth > 1 else {}


def random_points(count: int, seed: int) -> list[Point]:
    rng = np.random.default_rng(seed)
    return [numbered_point(number, random_vector(rng)) for number in range(count)]


def random_queries(count: int, seed: int) -> Sequence[FusedVector]:
    rng = np.random.default_rng(seed)
    return [random_vector(rng, kept=8) for _ in range(count)]


def new_build(
    id: str, index: str = "test-birds", *, day: int = 1, fields: Mapping[str, FieldType] = MappingProxyType({})
) -> Build:
    created = datetime(2026, 1, day, tzinfo=UTC)
    return Build(id=id, index=index, fingerprint="f" * 64, dense_dim=DENSE_DIM, created=created, fields=dict(fields))
