"""One build on a Qdrant server: a collection, written, read and searched over HTTP.

The server has no lock that one writer could hold; who writes to a build sees to it that nobody else does.
"""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from qdrant_client import QdrantClient, models
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from indexer.checks import check_point_ids, check_points, check_vector
from indexer.facets import facet_clauses
from indexer.filters import Clauses, parse_filter
from indexer.points import read_point
from indexer.qdrant_requests import EXACT, qdrant_filter, query_request, sparse_vector, upsert_batches
from indexer.ranking import Candidate, Scoring, best_hits
from indexer.store import (
    DEFAULT_DEPTH,
    Build,
    Condition,
    FacetCount,
    Filter,
    Hit,
    IndexNotFound,
    Mode,
    Point,
    Scored,
    Side,
    StoreError,
    StoreUnavailable,
)
from model.vector import FusedVector

SCROLL_PAGE = 256
IDS_A_REQUEST = 1000
POLL_S = 0.5


class QdrantStore:
    """One build in a collection. Made by `QdrantEngine`, whose client it shares."""

    exclusive = False
    """See `Store.exclusive`."""

    def __init__(self, build: Build, client: QdrantClient, collection: str, *, write: bool) -> None:
        self._build = build
        self._client = client
        self._collection = collection
        self._write = write

    @property
    def build(self) -> Build:
        """See `Store.build`."""
        return self._build

    def upsert(self, points: Sequence[Point]) -> None:
        """See `Store.upsert`. In as many requests as the server's bound on their size takes."""
        self._check_write()
        check_points(points, self._build.dense_dim)
        for batch in upsert_batches(points):
            with answering(self._client):
                self._client.upsert(self._collection, [_point_struct(point) for point in batch], wait=True)

    def delete(self, ids: Sequence[str]) -> None:
        """See `Store.delete`."""
        self._check_write()
        check_point_ids(ids)
        for start in range(0, len(ids), IDS_A_REQUEST):
            batch = models.PointIdsList(points=list(ids[start : start + IDS_A_REQUEST]))
            with answering(self._client):
                self._client.delete(self._collection, batch, wait=True)

    def delete_where(self, filter: Filter) -> None:
        """See `Store.delete_where`."""
        self._check_write()
        where = qdrant_filter(parse_filter(filter, self._build.indexed_fields))
        with answering(self._client):
            self._client.delete(self._collection, models.FilterSelector(filter=where), wait=True)

    def get(self, ids: Sequence[str]) -> list[Point]:
        """See `Store.get`."""
        check_point_ids(ids)
        if not ids:
            return []
        with answering(self._client):
            records = self._client.retrieve(self._collection, list(ids), with_payload=True, with_vectors=True)
        points = {str(record.id): _point(record) for record in records}
        return [points[id] for id in ids if id in points]

    def scroll(self, start: str | None = None, *, filter: Filter | None = None) -> Iterator[Point]:
        """See `Store.scroll`."""
        offset: Any = start
        where = qdrant_filter(parse_filter(filter, self._build.indexed_fields)) if filter else None
        while True:
            with answering(self._client):
                records, offset = self._client.scroll(
                    self._collection, where, limit=SCROLL_PAGE, offset=offset, with_payload=True, with_vectors=True
                )
            yield from map(_point, records)
            if offset is None:
                return

    def count(self) -> int:
        """See `Store.count`."""
        with answering(self._client):
            return self._client.count(self._collection, exact=True).count

    def count_documents(self) -> int:
        """See `Store.count_documents`."""
        first = models.Filter(must=[models.FieldCondition(key="chunk", match=models.MatchValue(value=0))])
        with answering(self._client):
            return self._client.count(self._collection, first, exact=True).count

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
        candidates = partial(self._candidates, query, max(depth, limit), clauses)
        return best_hits(query, mode, limit, candidates=candidates, get=self.get)

    def facets(self, field: str, filter: Filter | None = None, *, limit: int = 10) -> list[FacetCount]:
        """See `Store.facets`."""
        where = qdrant_filter(facet_clauses(self._build, field, filter))
        with answering(self._client):
            found = self._client.facet(self._collection, field, facet_filter=where, limit=limit, exact=True)
        return [FacetCount(hit.value, hit.count) for hit in found.hits]

    def scored(self, query: FusedVector, side: Side, *, limit: int, filter: Filter | None = None) -> list[Scored]:
        """See `Store.scored`."""
        check_vector(query, self._build.dense_dim, "The query")
        clauses = parse_filter(filter, self._build.indexed_fields) if filter else None
        with answering(self._client):
            found = self._client.query_points(
                self._collection,
                query=query.cls.tolist() if side == "cls" else sparse_vector(query),
                using=side,
                query_filter=qdrant_filter(clauses) if clauses else None,
                search_params=EXACT,
                limit=limit,
                with_payload=["parent_id"],
            )
        return [
            Scored(str(point.id), str((point.payload or {}).get("parent_id", point.id)), point.score)
            for point in found.points
        ]

    def flush(self) -> None:
        """See `Store.flush`. Each write has waited for the server, so nothing is left to do."""

    def condition(self) -> Condition:
        """See `Store.condition`: the server is green."""
        with answering(self._client):
            info = self._client.get_collection(self._collection)
        fields = None if self._client.init_options["url"] is None else frozenset(info.payload_schema)
        green = info.status == models.CollectionStatus.GREEN
        return Condition(green, info.status.value, fields, info.segments_count, None)

    def ripe(self) -> bool:
        """See `Store.ripe`: a server sees to its segments by itself."""
        return False

    def optimize(self, patience_s: float = 3600) -> None:
        """Wait until the server has built its indexes, which it does by itself and for as long as it takes.

        Raises:
            StoreError: Its optimizer failed, or has got no further for `patience_s` seconds.
        """
        before, since = None, time.monotonic()
        while (progress := self._progress()).status != models.CollectionStatus.GREEN:
            if progress.status == models.CollectionStatus.RED:
                raise StoreError(f"Collection {self._collection} is red: its optimizer failed; see the server's log.")
            if progress != before:
                before, since = progress, time.monotonic()
            elif time.monotonic() - since > patience_s:
                raise StoreError(
                    f"Collection {self._collection} is {progress.status.value}, with {progress.indexed:,} vectors "
                    f"indexed, and got no further in {patience_s:g} s; see the server's log, or give it more memory."
                )
            time.sleep(POLL_S)

    def close(self) -> None:
        """See `Store.close`. The client belongs to the engine."""

    def _candidates(
        self, query: FusedVector, depth: int, filter: Clauses | None, scoring: Scoring
    ) -> Sequence[Candidate]:
        with answering(self._client):
            (found,) = self._client.query_batch_points(self._collection, [query_request(query, scoring, depth, filter)])
        return found.points

    def _progress(self) -> "_Progress":
        """Grey means that a restarted server waits for a write before it optimizes on; an empty change is one."""
        with answering(self._client):
            info = self._client.get_collection(self._collection)
            if info.status == models.CollectionStatus.GREY:
                self._client.update_collection(self._collection, optimizers_config=models.OptimizersConfigDiff())
        return _Progress(info.status, info.indexed_vectors_count or 0)

    def _check_write(self) -> None:
        if not self._write:
            raise StoreError(f"Build {self._build.id} of index {self._build.index} is open for reading only.")


class _Progress(NamedTuple):
    """How far the server's optimizer has got."""

    status: models.CollectionStatus
    indexed: int


@contextmanager
def answering(client: QdrantClient) -> Iterator[None]:
    """Turn the client's errors into ours, naming the server by its address but never by a key."""
    server = f"Qdrant at {address(client)}"
    try:
        yield
    except ResponseHandlingException as error:
        raise StoreUnavailable(f"{server} does not answer ({error.source}); check DUPMAE_QDRANT_URL.") from error
    except json.JSONDecodeError as error:
        raise StoreUnavailable(f"{server} replied with something else than JSON ({error}); try again.") from error
    except ResourceExhaustedResponse as error:
        raise StoreUnavailable(f"{server} is overloaded; try again in {error.retry_after_s} s.") from error
    except UnexpectedResponse as error:
        raise _domain_error(server, error) from error


def address(client: QdrantClient) -> str:
    """Where the client looks for its server, without user name, password and query."""
    options = client.init_options
    if options["url"] is None:
        return str(options["host"] or options["path"] or options["location"])
    parts = urlsplit(options["url"])
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _domain_error(server: str, error: UnexpectedResponse) -> StoreError:
    reply = f"{server} replied {error.status_code}: {error.content.decode(errors='replace')[:200]}"
    match error.status_code:
        case 401 | 403:
            return StoreError(f"{reply}; set DUPMAE_QDRANT_API_KEY to a key that may do this.")
        case 404:
            return IndexNotFound(f"{reply}; list what exists with `dupmae index list`.")
        case 408 | 429 | 500 | 502 | 503 | 504:
            return StoreUnavailable(f"{reply}; try again.")
        case _:
            return StoreError(f"{reply}.")


def _point_struct(point: Point) -> models.PointStruct:
    vectors: dict[str, Any] = {"cls": point.vector.cls.tolist(), "ot": sparse_vector(point.vector)}
    return models.PointStruct(id=point.id, vector=vectors, payload=dict(point.payload))


def _point(record: models.Record) -> Point:
    vectors: Any = record.vector
    return read_point(record.id, vectors, record.payload)
