"""What an engine must do: the two protocols that `edge` and `qdrant` implement, and the values they exchange.

A `Store` is one build: a collection of points that one artifact encoded. An `Engine` holds the builds of every named
index and knows which build of each is published. Both engines answer alike: `tests/indexer`
runs one contract over both.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from indexer.collection import CollectionOptions
from indexer.modes import Mode as Mode
from indexer.probe_set import ProbeSet
from model.rarity import Rarity
from model.vector import FusedVector, Parts

if TYPE_CHECKING:
    from indexer.journal import Journal

FieldType = Literal["keyword", "integer", "float", "bool", "datetime", "text", "geo"]
Side = Literal["cls", "ot"]
State = Literal["reading", "encoding", "indexing", "verifying", "ready", "failed"]
"""What is done with a build. `published` and `retired` are no states of it: the index's pointer says which is live."""
Payload = dict[str, JsonValue]
Filter = Mapping[str, JsonValue]
"""A filter in Qdrant's JSON grammar, such as `{"must": [{"key": "metadata.lang", "match": {"value": "en"}}]}`."""

DEFAULT_DEPTH = 200
"""Candidates that each side of a fused query brings. The score is exact at any depth; the ranking is complete only
if no true hit lies deeper than this on both sides (see docs/architecture.md for the measured overlap)."""

INDEX_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
JOURNAL = "journal"
"""Names the live writes of an index beside its builds, so no build may be called so."""

BUILD_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
FIELD_PATH = re.compile(r"[A-Za-z0-9_-]+(\[\])?(\.[A-Za-z0-9_-]+(\[\])?)*")


class StoreError(Exception):
    """The engine could not do what was asked; the message names the index, the build and the remedy."""


class IndexNotFound(StoreError):
    """No published build (or no such build) under this index name."""


class BuildLocked(StoreError):
    """Another process is writing to this build."""


class BuildNotReady(StoreError):
    """No index may answer from a build that is not whole."""


class StoreUnavailable(StoreError):
    """The engine cannot be reached now; the same request may succeed later."""


class InvalidFilter(StoreError, ValueError):
    """A filter outside the grammar, or on a field that was not declared."""


class InvalidFacet(StoreError, ValueError):
    """Values are to be counted of a field that was not declared, or of a type that is not counted."""


class Chunking(BaseModel):
    """How long documents become passages; part of what a build is, since other passages are other vectors.

    Attributes:
        tokens: Longest passage, in tokens of the text alone; None for what the model's window leaves beside the title.
        overlap: Tokens that a passage may share with the one before it; the default gives way in short passages.
        title: Whether the encoder reads the document's title before each passage, or before the first alone.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    tokens: int | None = Field(None, ge=16)
    overlap: int = Field(32, ge=0)
    title: bool = True


class Build(BaseModel):
    """The facts of one build, kept with its collection.

    Attributes:
        documents: Documents it holds, each of one passage or more.
        passages: Points it holds.
        chunking: How documents became passages; None where each is one, of which the model read what fits its window.
        collection: How its points are laid out; needed to make it again.
        truncated: Passages of which the model saw less than the whole, or nothing for want of a word it knows.
        unchanged: Documents whose vectors were copied from an older build.
        dead: Records that became no document; they are in the dead-letter file.
        read: Records read: `documents` and `dead`.
        total: Records there were to read, if that was known beforehand.
        seconds: Time spent on it, over all runs.
        rate: Records that the last run read per second, but for those that were done before it.
        reason: Why it failed, or failed its verification.
        journal: Live writes of the index up to here are in it; see `indexer.journal`.
        rarity: How rare words are in it; None if the model does not weigh queries by that.
        judged: What was measured before it was published: metric -> (mean, low, high).
        probe: What a service asks while it answers from it; None if it did not pass the gate.
        went_live: When its index last began to answer from it; None if it never did, or was rolled back from.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    index: str
    fingerprint: str
    dense_dim: int
    created: datetime
    source: str = ""
    source_digest: str = ""
    fields: dict[str, FieldType] = {}
    chunking: Chunking | None = Chunking()
    collection: CollectionOptions = CollectionOptions()
    documents: int = 0
    passages: int = 0
    truncated: int = 0
    unchanged: int = 0
    dead: int = 0
    read: int = 0
    total: int | None = None
    seconds: float = 0.0
    rate: float = 0.0
    state: State = "encoding"
    reason: str = ""
    journal: int = 0
    rarity: Rarity | None = None
    judged: dict[str, tuple[float, float, float]] = {}
    probe: ProbeSet | None = None
    went_live: datetime | None = None

    @property
    def indexed_fields(self) -> dict[str, FieldType]:
        """Payload fields with an index, which are those a filter may name."""
        return {**self.fields, "doc_id": "keyword", "parent_id": "keyword", "chunk": "integer"}

    def weighed(self, query: FusedVector, *, blindly: bool = False) -> FusedVector:
        """A query as the encoder gives it -> as it is asked here: what every search, score and explanation begins with.

        Its words count by how rare they are in the build, if the model is made for that.

        Args:
            query: With the weights of the model.
            blindly: For one who may see a part of the build only: how rare words are in all of it would tell what the
                rest holds, so they are taken to be equally rare.
        """
        if self.rarity is None:
            return query
        return self.rarity.weigh_blindly(query) if blindly else self.rarity.weigh(query)

    @property
    def seconds_left(self) -> float | None:
        """Of reading and encoding, at the rate so far; None when it cannot be told."""
        if self.state != "encoding" or not self.total or not self.rate:
            return None
        return (self.total - self.read) / self.rate


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
    they are the two reciprocal ranks. `score` is their sum, computed in float64 and not taken from the engine.
    """

    point: Point
    score: float
    parts: Parts


@dataclass(frozen=True, slots=True)
class FacetCount:
    """A value of a field, and how many documents hold it."""

    value: str | int | bool
    count: int


@dataclass(frozen=True, slots=True)
class Scored:
    """A point that an engine scored, without its vectors.

    Attributes:
        id: The point's.
        parent_id: Of the document that it is a passage of; its own in a build that knew no passages.
        score: The engine's, in float32.
    """

    id: str
    parent_id: str
    score: float


@dataclass(frozen=True, slots=True)
class Condition:
    """What an engine says of the indexes it keeps for one build; nothing is changed by asking.

    Attributes:
        optimized: Whether it has nothing left to build.
        detail: The same in its own words.
        fields: Payload fields with an index; None where the engine keeps no such indexes (a client's local mode).
        segments: Parts that it keeps the points in, each with indexes of its own.
        size_bytes: What the build takes on disk; None where the engine does not tell, as a server.
    """

    optimized: bool
    detail: str
    fields: frozenset[str] | None
    segments: int
    size_bytes: int | None


class Store(Protocol):
    """One build. Calls are thread-safe for reading; one writer at a time.

    Attributes:
        exclusive: Whether only its opener can change the build while it is open.
    """

    exclusive: bool

    @property
    def build(self) -> Build:
        """The facts as they stood when the build was opened."""

    def upsert(self, points: Sequence[Point]) -> None:
        """Write points, replacing those of the same id. Durable after `flush`."""

    def delete(self, ids: Sequence[str]) -> None:
        """Remove points; unknown ids are ignored."""

    def delete_where(self, filter: Filter) -> None:
        """Remove the points that a filter of `search` would let through."""

    def get(self, ids: Sequence[str]) -> list[Point]:
        """The points that exist, in the order of `ids`."""

    def scroll(self, start: str | None = None, *, filter: Filter | None = None) -> Iterator[Point]:
        """Every point once, in ascending order of id; from id `start` on, whether there is such a point or not.

        Args:
            start: An id.
            filter: As for `search`; only the points it lets through.
        """

    def count(self) -> int:
        """Number of points, exactly."""

    def count_documents(self) -> int:
        """Number of documents, exactly: points that are a first passage. Looks at every point."""

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
            query: The encoded query, as `Build.weighed` gives it.
            mode: `fused` (exact sum), `cls` or `ot` (one side), `rrf` (reciprocal rank fusion with k = 60).
            limit: Hits to return.
            depth: Candidates each side brings; raised to `limit` when smaller.
            filter: Qdrant's JSON grammar, over `doc_id`, `parent_id`, `chunk` and declared fields.

        Raises:
            InvalidFilter: Unknown condition or a field without a payload index.
            StoreError: A query that does not fit the build, or an engine whose score disagrees with its own vectors.
            StoreUnavailable: The engine cannot be reached.
        """

    def facets(self, field: str, filter: Filter | None = None, *, limit: int = 10) -> list[FacetCount]:
        """The values of a declared field with the documents that hold them, sorted by (-count, value), exactly.

        Args:
            field: Declared as keyword, integer or bool. Of a list every value counts.
            filter: As for `search`; of each document it is asked of the first passage.
            limit: Values to return.

        Raises:
            InvalidFacet: The field cannot be counted; the message names those that can.
            InvalidFilter, StoreUnavailable: As `search`.
        """

    def scored(self, query: FusedVector, side: Side, *, limit: int, filter: Filter | None = None) -> list[Scored]:
        """The best `limit` points by one side alone, exactly: neither a graph nor quantized vectors decide.

        By `ot` only points that share a term with the query are found. Slower than `search` in a large build, and
        lighter by the vectors and the texts, which stay where they are. Ties stand in no order.

        Raises:
            InvalidFilter, StoreError, StoreUnavailable: As `search`.
        """

    def flush(self) -> None:
        """Return when everything written so far is durable."""

    def condition(self) -> Condition:
        """Whether the indexes that search wants are there."""

    def ripe(self) -> bool:
        """Whether points enough for a part of their own have been written since the last `optimize`.

        A build that is optimized whenever it is ripe comes to consist of several parts, and a query is answered by as
        many cores.
        """

    def optimize(self) -> None:
        """Build the indexes that search wants. Slow; never called in a serving process."""

    def close(self) -> None:
        """Release the build; harmless when done already."""


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
        """One build, the published one unless named; read-only unless `write`, which adds missing payload indexes.

        Raises:
            IndexNotFound: Nothing is published, or there is no build of this id.
            BuildLocked: Edge only: another process writes to this build, or reads it while we want to write.
        """

    def save(self, build: Build) -> None:
        """Replace the stored facts of a build atomically."""

    def publish(self, build: Build) -> None:
        """Make this build the one its index answers from, atomically. Nothing is deleted.

        Raises:
            StoreError: The saved state of the build is not `ready`, or its index name is somebody else's alias.
        """

    def drop(self, build: Build) -> None:
        """Delete a build. Refuses the published one."""

    def journal(self, index: str) -> "Journal":
        """The live writes of an index; empty when there were none."""

    def close(self) -> None:
        """Release what the engine itself holds; stores are closed by those who opened them."""


def check_index_name(name: str) -> None:
    """Raise StoreError unless `name` can name an index: it becomes a folder, a collection and an alias."""
    if not INDEX_NAME.fullmatch(name):
        raise StoreError(
            f"Index name {name!r} is not allowed: use 1 to 63 of a-z, 0-9, '-' and '_', starting with a letter or "
            "digit."
        )


def check_build_id(build_id: str) -> None:
    """Raise StoreError unless `build_id` can name a build: it becomes a folder."""
    if not BUILD_ID.fullmatch(build_id) or build_id == JOURNAL:
        raise StoreError(
            f"Build id {build_id!r} is not allowed: use 1 to 63 letters, digits, '-', '_' and '.', starting with a "
            "letter or digit."
        )


def check_build(build: Build) -> None:
    """Raise StoreError unless an engine can store this build under its names."""
    check_index_name(build.index)
    check_build_id(build.id)
    for field in build.fields:
        if not FIELD_PATH.fullmatch(field):
            raise StoreError(
                f"Field {field!r} cannot be indexed: name it as a path, such as metadata.lang or tags[].name."
            )


def check_ready(build: Build) -> None:
    """Raise BuildNotReady unless a build is whole, so that an index may answer from it."""
    if build.state != "ready":
        raise BuildNotReady(
            f"Build {build.id} of index {build.index} is {build.state}; only a ready build can be published. Give the "
            "command that began it again, or publish another one."
        )
