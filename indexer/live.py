"""The published build of an index, taking live writes: one journal, one open store, one writer.

A write is in the journal before it is in the build, and whatever the journal holds beyond the build's position is
replayed first. So a write that reached the journal and not the store, or that another replica made, is never overtaken.

A replica that stores its write late may undo a later one. It mends that by reading the journal once more, unless it
dies before. So whoever opens a build replays its last writes again, where several replicas may have made them.
"""

from typing import NamedTuple, cast

from indexer.checks import check_points
from indexer.chunking import Chunker
from indexer.documents import Document
from indexer.encoding import encode_passages
from indexer.journal import Write
from indexer.points import point_id
from indexer.replay import replay, replayed_facts, store_points
from indexer.store import Build, Engine, Point, Store, StoreError
from model.encoder import Encoder, EncodingError


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
    metadata = first.get("metadata")
    return Document(
        document_id,
        str(first.get("title", "")),
        text,
        str(first.get("url", "")),
        metadata if isinstance(metadata, dict) else {},
    )


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

    def put(self, document: Document) -> Written:
        """Store a document; it can be found when this returns.

        Raises:
            EncodingError: It has no vector; nothing is written.
            StoreError: No engine can hold it, and nothing is written; or as `Journal.append` and `Store.upsert`: repeat
                the write.
        """
        encoded = encode_passages(self._chunker, [document])
        for _, reason in encoded.refused:
            raise EncodingError(reason, (0,))
        points = encoded.documents[0].points
        check_points(points, self.build.dense_dim)
        return self._write(Write.put(document), points)

    def delete(self, document_id: str) -> Written:
        """Remove a document, if the index holds it.

        Raises:
            StoreError: As `put`.
        """
        return self._write(Write.delete(document_id), [])

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

    def _write(self, write: Write, points: list[Point]) -> Written:
        self.catch_up()
        existed = bool(self._store.get([point_id(write.document_id)]))
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


def _live_facts(build: Build) -> dict[str, int]:
    """What live writes change."""
    return {"journal": build.journal, "documents": build.documents, "passages": build.passages}
