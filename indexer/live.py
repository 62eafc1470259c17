"""The published build of an index, taking live writes: one journal, one open store, one writer.

A write is in the journal before it is in the build, and whatever the journal holds beyond the build's position is
replayed first. So a write that reached the journal and not the store, or that another replica made, is never overtaken.

A replica that stores its write late may undo a later one. It mends that by reading the journal once more, unless it
dies before. So whoever opens a build replays its last writes again, where several replicas may have made them.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple, cast

from pydantic import JsonValue

from indexer.checks import check_points
from indexer.chunking import Chunker
from indexer.documents import Document
from indexer.encoding import encode_passages
from indexer.journal import Write
from indexer.points import point_id
from indexer.replay import replay, replayed_facts, store_points
from indexer.store import Build, Engine, Point, Store, StoreError
from model.encoder import Encoder, EncodingError

Metadata = Mapping[str, JsonValue]


class Written(NamedTuple):
    """What became of a write.

    Attributes:
        position: Its place in the journal; 0 when there was nothing to delete.
        existed: Whether the index held the document before.
    """

    position: int
    existed: bool


def stored_document(store: Store, document_id: str) -> Document | None:
    """A document as its passages hold it, put together again; None when the build has none of this id."""
    passages = store.get([point_id(document_id)])
    if not passages:
        return None
    first = passages[0].payload
    passages += store.get([point_id(document_id, chunk) for chunk in range(1, cast(int, first.get("chunks", 1)))])
    text = ""
    for passage in passages:
        start = cast(int, passage.payload.get("start", 0))
        text = text[:start].ljust(start) + str(passage.payload.get("text", ""))
    return Document(document_id, str(first.get("title", "")), text, str(first.get("url", "")), metadata_of(passages[0]))


class DocumentHeld(Exception):
    """A document is not to be replaced or removed by who asked.

    Attributes:
        metadata: What is known of it.
    """

    def __init__(self, document_id: str, metadata: Metadata) -> None:
        super().__init__(f"document {document_id!r} is held by somebody else; choose another id")
        self.metadata = metadata


class LiveBuild:
    """A build that follows its journal. One thread at a time.

    Attributes:
        build: Its facts, live writes counted; `save` makes them durable.
    """

    def __init__(self, engine: Engine, store: Store, encoder: Encoder) -> None:
        self._engine = engine
        self._store = store
        self._chunker = Chunker(encoder, store.build.chunking)
        self._journal = engine.journal(store.build.index)
        self._saved = _live_facts(store.build)
        self._settled = max(0, store.build.journal - self._journal.unsettled)
        self.build = store.build

    def put(self, document: Document, may_replace: Callable[[Metadata], bool] = lambda metadata: True) -> Written:
        """Store a document; it can be found when this returns.

        Args:
            document: Takes the place of the one of its id.
            may_replace: Asked about the metadata of that one, if there is one, when nothing can come between.

        Raises:
            DocumentHeld: It may not; nothing is written.
            EncodingError: It has no vector; nothing is written.
            StoreError: No engine can hold it, and nothing is written; or as `Journal.append` and `Store.upsert`: repeat
                the write.
        """
        encoded = encode_passages(self._chunker, [document])
        for _, reason in encoded.refused:
            raise EncodingError(reason, (0,))
        points = encoded.documents[0].points
        check_points(points, self.build.dense_dim)
        return self._write(Write.put(document), points, may_replace)

    def delete(self, document_id: str, may_remove: Callable[[Metadata], bool] = lambda metadata: True) -> Written:
        """Remove a document, if the index holds it; `may_remove` as in `put`.

        Raises:
            DocumentHeld: It may not; nothing is written.
            StoreError: As `put`.
        """
        return self._write(Write.delete(document_id), [], may_remove)

    def catch_up(self, base: Store | None = None) -> None:
        """Replay what the journal holds beyond this build, and at first its unsettled writes; see `replay`."""
        end = self._journal.position()
        if end < self.build.journal:
            raise StoreError(
                f"The journal of index {self.build.index} ends at {end}, but build {self.build.id} has read up to "
                f"{self.build.journal}: writes are lost. Restore the journal, or build the index again."
            )
        if end > self._settled:
            self._settled = replay(self._store, self._chunker, self._journal, self._settled, base)
            self.build = replayed_facts(self._store, self.build, self._settled)

    def save(self) -> None:
        """Make durable what was written, and how far the build has read: less to replay for whoever opens it next.

        Raises:
            StoreError: The engine failed, or the build is gone, which a server does not keep anybody from deleting.
        """
        live = _live_facts(self.build)
        if live == self._saved:
            return
        self._store.flush()
        facts = next((build for build in self._engine.builds(self.build.index) if build.id == self.build.id), None)
        if facts is None:
            raise StoreError(
                f"Build {self.build.id} of index {self.build.index} was deleted while it was open; its writes are in "
                "the journal, and in every build that is published."
            )
        self._engine.save(facts.model_copy(update=live))
        self._saved = live

    def _write(self, write: Write, points: list[Point], may_change: Callable[[Metadata], bool]) -> Written:
        self.catch_up()
        held = self._store.get([point_id(write.document_id)])
        existed = bool(held)
        if existed and not may_change(metadata := metadata_of(held[0])):
            raise DocumentHeld(write.document_id, metadata)
        if write.document is None and not existed:
            return Written(0, False)
        position = self._journal.append([write])
        if position == self.build.journal + 1:
            store_points(self._store, [write.document_id], points)
            change = bool(points) - existed
            documents, passages = self.build.documents + change, self._store.count()
            self.build = self.build.model_copy(
                update={"journal": position, "documents": documents, "passages": passages}
            )
            self._settled = position
        self.catch_up()  # what others wrote meanwhile, and may have stored before this
        return Written(position, existed)


def metadata_of(point: Point) -> Metadata:
    """The metadata of the document that a stored passage is of."""
    metadata = point.payload.get("metadata")
    return metadata if isinstance(metadata, dict) else {}


def _live_facts(build: Build) -> dict[str, int]:
    """What live writes change."""
    return {"journal": build.journal, "documents": build.documents, "passages": build.passages}
