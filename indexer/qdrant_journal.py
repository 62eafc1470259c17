"""The journal of an index on a Qdrant server: the collection `<index>--journal`, whose points have no vectors.

The replicas of a service share it. A position is a point id, and is taken by inserting a point that must not exist yet:
of two replicas that want the same one, the server lets one have it, and the other takes the next.
"""

import uuid
from collections.abc import Iterator, Sequence

from qdrant_client import QdrantClient, models

from indexer.journal import Write
from indexer.qdrant_store import address, answering
from indexer.store import StoreError

METADATA_KEY = "dupmae-journal"
FIRST_VERSION = (1, 17)
"""The first server that inserts without replacing; an older one would take it for a plain write and lose one of two."""

PAGE = 256
UNSETTLED = 256
"""More writes than others make while a replica stores one, or dies of it."""


class QdrantJournal:
    """The journal of one index. Made by `QdrantEngine`, whose client it shares."""

    unsettled = UNSETTLED

    def __init__(self, client: QdrantClient, collection: str) -> None:
        self._client = client
        self._collection = collection
        self._checked = False

    def append(self, writes: Sequence[Write]) -> int:
        """See `Journal.append`. One by one, so that the order is kept whoever else appends."""
        self._create()
        position = self.position()
        for write in writes:
            position = self._append(write, position + 1)
        return position

    def since(self, position: int) -> Iterator[tuple[int, Write]]:
        """See `Journal.since`."""
        later = models.Filter(must=[models.FieldCondition(key="position", range=models.Range(gt=position))])
        offset: models.ExtendedPointId | None = None
        while self._exists():
            with answering(self._client):
                records, offset = self._client.scroll(
                    self._collection, scroll_filter=later, limit=PAGE, offset=offset, consistency=_MAJORITY
                )
            for record in records:
                yield int(record.id), Write.from_record((record.payload or {})["write"])
            if offset is None:
                return

    def position(self) -> int:
        """See `Journal.position`."""
        if not self._exists():
            return 0
        newest = models.OrderBy(key="position", direction=models.Direction.DESC)
        with answering(self._client):
            records, _ = self._client.scroll(self._collection, limit=1, order_by=newest, consistency=_MAJORITY)
        return int(records[0].id) if records else 0

    def _append(self, write: Write, position: int) -> int:
        token = uuid.uuid4().hex
        while True:
            payload = {"write": write.record(), "position": position, "token": token}
            point = models.PointStruct(id=position, vector={}, payload=payload)
            with answering(self._client):
                self._client.upsert(
                    self._collection,
                    [point],
                    wait=True,
                    ordering=models.WriteOrdering.STRONG,
                    update_mode=models.UpdateMode.INSERT_ONLY,
                )
                (there,) = self._client.retrieve(self._collection, [position], consistency=_MAJORITY)
            if (there.payload or {}).get("token") == token:  # not all of it: a float may come back as its neighbour
                return position
            position += 1

    def _exists(self) -> bool:
        if not self._checked:
            with answering(self._client):
                if not self._client.collection_exists(self._collection):
                    return False
                metadata = self._client.get_collection(self._collection).config.metadata or {}
            if METADATA_KEY not in metadata:
                raise StoreError(
                    f"Collection {self._collection} on {address(self._client)} is no journal; rename it, or choose "
                    "another index name."
                )
            self._checked = True
        return True

    def _create(self) -> None:
        if self._exists():
            return
        with answering(self._client):
            version = self._client.info().version
            if tuple(map(int, version.split(".")[:2])) < FIRST_VERSION:
                raise StoreError(
                    f"Qdrant at {address(self._client)} has version {version}; live writes need "
                    f"{'.'.join(map(str, FIRST_VERSION))} or newer."
                )
            self._client.create_collection(self._collection, vectors_config={}, metadata={METADATA_KEY: 1})
            integer = models.PayloadSchemaType.INTEGER
            self._client.create_payload_index(self._collection, "position", field_schema=integer, wait=True)


_MAJORITY = models.ReadConsistencyType.MAJORITY
