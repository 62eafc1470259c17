"""One embedded build, open in this process: written, read and searched through qdrant-edge."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import qdrant_edge as edge

from indexer.checks import check_point_ids, check_points, check_vector
from indexer.edge_fused import fused_candidates
from indexer.edge_requests import edge_filter, query_request, scored_request, sparse_vector
from indexer.facets import facet_clauses
from indexer.filters import Clauses, parse_filter
from indexer.locks import BuildLock
from indexer.points import read_point
from indexer.ranking import Candidate, Scoring, best_hits
from indexer.store import (
    DEFAULT_DEPTH,
    Build,
    Condition,
    FacetCount,
    Filter,
    Hit,
    Mode,
    Point,
    Scored,
    Side,
    StoreError,
)
from model.vector import FusedVector

SCROLL_PAGE = 256

INDEXING_THRESHOLD_KB = 10_000
"""A segment whose cls vectors take more is given an HNSW graph; a smaller one is scanned, fast and exact."""


PART_POINTS = 500_000
"""The engine searches the segments of a build at the same time, a core each, and makes one of what it has to optimize.
A smaller one would cost the cores more in all: each is a graph to search, .6 ms with a quarter of a million points as
with half a million, where the words of these take 2 ms (docs/benchmarks.md)."""

PARTS = 8
"""When there are more, the engine merges the smallest, and builds their indexes anew."""


class EdgeStore:
    """One build in a folder. Made by `EdgeEngine`."""

    exclusive = True
    """See `Store.exclusive`: a reader's lock keeps writers out, and a writer's everybody."""

    def __init__(self, build: Build, shard: edge.EdgeShard, lock: BuildLock, folder: Path, *, write: bool) -> None:
        self._build = build
        self._folder = folder
        self._shard = shard
        self._lock = lock
        self._write = write

    @property
    def build(self) -> Build:
        """The facts as they stood when the build was opened."""
        return self._build

    def upsert(self, points: Sequence[Point]) -> None:
        """See `Store.upsert`."""
        check_points(points, self._build.dense_dim)
        self._update(edge.UpdateOperation.upsert_points([_edge_point(point) for point in points]))

    def delete(self, ids: Sequence[str]) -> None:
        """See `Store.delete`."""
        check_point_ids(ids)
        self._update(edge.UpdateOperation.delete_points(list(ids)))

    def delete_where(self, filter: Filter) -> None:
        """See `Store.delete_where`."""
        where = edge_filter(parse_filter(filter, self._build.indexed_fields))
        self._update(edge.UpdateOperation.delete_points_by_filter(where))

    def get(self, ids: Sequence[str]) -> list[Point]:
        """See `Store.get`."""
        uuids: list[edge.PointId] = [*check_point_ids(ids)]  # which the engine reads sooner than their spelling
        with naming(self._build):
            records = self._shard.retrieve(uuids, with_payload=True, with_vector=True)
        points = {str(record.id): _point(record) for record in records}
        return [points[id] for id in ids if id in points]

    def scroll(self, start: str | None = None, *, filter: Filter | None = None) -> Iterator[Point]:
        """See `Store.scroll`."""
        offset: edge.PointId | None = start
        where = edge_filter(parse_filter(filter, self._build.indexed_fields)) if filter else None
        while True:
            request = edge.ScrollRequest(
                offset=offset, limit=SCROLL_PAGE, filter=where, with_payload=True, with_vector=True
            )
            with naming(self._build):
                records, offset = self._shard.scroll(request)
            yield from map(_point, records)
            if offset is None:
                return

    def count(self) -> int:
        """See `Store.count`."""
        with naming(self._build):
            return self._shard.count(edge.CountRequest(exact=True))

    def count_documents(self) -> int:
        """See `Store.count_documents`."""
        first = edge.Filter(must=[edge.FieldCondition("chunk", match=edge.MatchValue(0))])
        with naming(self._build):
            return self._shard.count(edge.CountRequest(exact=True, filter=first))

    def search(
        self,
        query: FusedVector,
        *,
        mode: Mode = "fused",
        limit: int = 10,
        depth: int = DEFAULT_DEPTH,
        filter: Filter | None = None,
    ) -> list[Hit]:
        """See `Store.search`. In a build of more than a few thousand points `cls` is approximate (HNSW)."""
        check_vector(query, self._build.dense_dim, "The query")
        clauses = parse_filter(filter, self._build.indexed_fields) if filter else None
        candidates = partial(self._candidates, query, limit, max(depth, limit), clauses)
        return best_hits(query, mode, limit, candidates=candidates, get=self.get)

    def facets(self, field: str, filter: Filter | None = None, *, limit: int = 10) -> list[FacetCount]:
        """See `Store.facets`."""
        where = edge_filter(facet_clauses(self._build, field, filter))
        with naming(self._build):
            found = self._shard.facet(edge.FacetRequest(field, limit=limit, exact=True, filter=where))
        return [FacetCount(hit.value, hit.count) for hit in found.hits]

    def scored(self, query: FusedVector, side: Side, *, limit: int, filter: Filter | None = None) -> list[Scored]:
        """See `Store.scored`."""
        check_vector(query, self._build.dense_dim, "The query")
        clauses = parse_filter(filter, self._build.indexed_fields) if filter else None
        with naming(self._build):
            found = self._shard.query(scored_request(query, side, limit, clauses))
        return [
            Scored(str(point.id), str((point.payload or {}).get("parent_id", point.id)), point.score) for point in found
        ]

    def flush(self) -> None:
        """See `Store.flush`."""
        with naming(self._build):
            self._shard.flush()

    def condition(self) -> Condition:
        """See `Store.condition`.

        The engine has no question that does not also optimize, so its figures are compared with its rule: a segment
        takes points until its vectors reach the threshold, and is indexed then. Deleted points count as indexed until
        the engine sweeps them out, so many of them hide points that wait.
        """
        with naming(self._build):
            info = self._shard.info()
        waiting = _waiting(info)
        allowed = INDEXING_THRESHOLD_KB * 1024 // (4 * self._build.dense_dim)
        detail = f"{waiting:,} points outside HNSW, {allowed:,} may be"
        return Condition(
            waiting <= allowed,
            detail,
            frozenset(info.payload_schema),
            info.segments_count,
            allocated_bytes(self._folder),
        )

    def ripe(self) -> bool:
        """See `Store.ripe`."""
        with naming(self._build):
            return _waiting(self._shard.info()) >= PART_POINTS

    def optimize(self) -> None:
        """See `Store.optimize`. Durable when it returns."""
        self._check_write()
        with naming(self._build):
            while self._shard.optimize():
                pass
            self._shard.flush()

    def close(self) -> None:
        """See `Store.close`."""
        self._shard.close()
        self._lock.release()

    def _candidates(
        self, query: FusedVector, limit: int, depth: int, filter: Clauses | None, scoring: Scoring
    ) -> Sequence[Candidate]:
        with naming(self._build):
            scan = self._has_no_graph()
            if scoring == "fused":
                return fused_candidates(self._shard, query, limit=limit, depth=depth, filter=filter, scan=scan)
            return self._shard.query(query_request(query, scoring, depth, filter, scan=scan))

    def _has_no_graph(self) -> bool:
        """Whether the engine scans every [CLS] vector anyway. Every ot vector counts as indexed."""
        info = self._shard.info()
        return info.indexed_vectors_count <= info.points_count

    def _update(self, operation: edge.UpdateOperation) -> None:
        self._check_write()
        with naming(self._build):
            self._shard.update(operation)

    def _check_write(self) -> None:
        if not self._write:
            raise StoreError(f"Build {self._build.id} of index {self._build.index} is open for reading only.")


def _waiting(info: "edge.ShardInfo") -> int:
    """Points without a place in a graph; every ot vector counts as indexed."""
    return max(0, 2 * info.points_count - info.indexed_vectors_count)


def allocated_bytes(folder: Path) -> int:
    """Bytes that the files below a folder take; their lengths say more, since the engine's files have holes."""
    total = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):  # the engine replaces its files while somebody writes
            total += path.stat().st_blocks * 512
    return total


def _edge_point(point: Point) -> edge.Point:
    vectors = {"cls": point.vector.cls.tolist(), "ot": sparse_vector(point.vector)}
    return edge.Point(point.id, vectors, dict(point.payload))


def _point(record: edge.Record) -> Point:
    vectors: Any = record.vector
    return read_point(record.id, vectors, record.payload)


@contextmanager
def naming(build: Build) -> Iterator[None]:
    """Name the build in the engine's errors, which are bare `Exception`s: anything narrower is our own mistake.

    Its panics are no `Exception`s, and their class cannot be imported.
    """
    try:
        yield
    except BaseException as error:
        if type(error) is not Exception and type(error).__name__ != "PanicException":
            raise
        raise StoreError(
            f"Build {build.id} of index {build.index}: {error}. If the folder is damaged, build the index again."
        ) from error
