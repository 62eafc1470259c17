"""What an engine must do: the two protocols that `edge` and `qdrant` implement, and the values they exchange.

A `Store` is one build: a collection of points that one artifact encoded. An `Engine` holds the builds of every named
index and knows which build of each is published. Both engines answer alike; `tests/indexer` runs one contract over both.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

from pydantic import BaseModel, ConfigDict, JsonValue

from model.vector import FusedVector, Parts

Mode = Literal["fused", "cls", "ot", "rrf"]
FieldType = Literal["keyword", "integer", "float", "bool", "datetime", "text"]
Payload = dict[str, JsonValue]
Filter = Mapping[str, JsonValue]
"""A filter in Qdrant's JSON grammar, such as `{"must": [{"key": "metadata.lang", "match": {"value": "en"}}]}`."""

DEFAULT_DEPTH = 200
"""Candidates that each side of a fused query brings. The score is exact at any depth; the ranking is complete only
if no true hit lies deeper than this on both sides (see docs/architecture.md for the measured overlap)."""

RRF_K = 60
"""The constant of reciprocal rank fusion (Cormack et al., 2009)."""


class StoreError(Exception):
    """The engine could not do what was asked; the message names the index, the build and the remedy."""


class IndexNotFound(StoreError):
    """No published build (or no such build) under this index name."""


class BuildLocked(StoreError):
    """Another process is writing to this build."""


class StoreUnavailable(StoreError):
    """The engine cannot be reached now; the same request may succeed later."""


class InvalidFilter(StoreError, ValueError):
    """A filter outside the grammar, or on a field that was not declared."""


class Build(BaseModel):
    """The facts of one build, kept with its collection."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    index: str
    fingerprint: str
    dense_dim: int
    created: datetime
    source: str = ""
    source_digest: str = ""
    fields: dict[str, FieldType] = {}
    documents: int = 0
    truncated: int = 0
    dead: int = 0
    state: Literal["building", "ready", "failed"] = "building"


@dataclass(frozen=True, slots=True)
class Point:
    """One passage as stored: its id (a UUIDv5 of document id and chunk number), vectors and payload."""

    id: str
    vector: FusedVector
    payload: Payload


@dataclass(frozen=True, slots=True)
class Hit:
    """One answer. `parts` are the addends of `score` in the mode that was asked.

    In `fused` they are the two inner products over the stored vectors; in `cls` and `ot` the other part is 0; in `rrf`
    they are the two reciprocal ranks. So `parts.cls + parts.ot` equals `score` within 1e-4 in every mode.
    """

    point: Point
    score: float
    parts: Parts


class Store(Protocol):
    """One build. Calls are thread-safe for reading; one writer at a time."""

    @property
    def build(self) -> Build: ...

    def upsert(self, points: Sequence[Point]) -> None:
        """Write points, replacing those of the same id. Durable after `flush`."""

    def delete(self, ids: Sequence[str]) -> None:
        """Remove points; unknown ids are ignored."""

    def get(self, ids: Sequence[str]) -> list[Point]:
        """The points that exist, in the order of `ids`."""

    def scroll(self) -> Iterator[Point]:
        """Every point once, in ascending order of id."""

    def count(self) -> int: ...

    def search(
        self,
        query: FusedVector,
        *,
        mode: Mode = "fused",
        limit: int = 10,
        depth: int = DEFAULT_DEPTH,
        filter: Filter | None = None,
    ) -> list[Hit]:
        """The best `limit` points, sorted by (-score, id).

        Args:
            query: The encoded query.
            mode: `fused` (exact sum), `cls` or `ot` (one side), `rrf` (reciprocal rank fusion with k = 60).
            limit: Hits to return.
            depth: Candidates each side brings; raised to `limit` when smaller.
            filter: Qdrant's JSON grammar, over `doc_id`, `parent_id` and declared fields.

        Raises:
            InvalidFilter: Unknown condition or a field without a payload index.
            StoreUnavailable: The engine cannot be reached.
        """

    def flush(self) -> None:
        """Return when everything written so far is durable."""

    def optimize(self) -> None:
        """Build the indexes that search wants. Slow; never called in a serving process."""

    def close(self) -> None: ...


class Engine(Protocol):
    """The builds of every named index, and which one of each is published."""

    def indexes(self) -> list[str]:
        """Names that have a published build, sorted."""

    def builds(self, index: str) -> list[Build]:
        """All builds of an index, newest first; empty when there are none."""

    def published(self, index: str) -> Build:
        """Raises IndexNotFound, naming the indexes that do exist."""

    def create(self, build: Build) -> Store:
        """A new, empty build, open for writing. Payload indexes exist before the first point.

        Raises:
            BuildLocked: A process is already writing a build of this id.
            StoreError: The build exists.
        """

    def open(self, index: str, build_id: str | None = None, *, write: bool = False) -> Store:
        """One build, the published one unless named; read-only unless `write`."""

    def save(self, build: Build) -> None:
        """Replace the stored facts of a build atomically."""

    def publish(self, build: Build) -> None:
        """Make this build the one its index answers from, atomically. Nothing is deleted."""

    def drop(self, build: Build) -> None:
        """Delete a build. Refuses the published one."""

    def close(self) -> None: ...
