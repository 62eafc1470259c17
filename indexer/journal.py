"""Live writes to an index, and the journal that keeps them in order.

A write is acknowledged once it is in the journal, so no build needs to be durable at every write: each says how far
it has read (`Build.journal`), and `indexer.replay` brings it up to date. The journal stands above the sources: what was
put or deleted live stays so in every later build, until it is written again. The cost: it only grows.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Protocol

from pydantic import JsonValue, TypeAdapter

from indexer.documents import Document

DOCUMENT = TypeAdapter(Document)


@dataclass(frozen=True, slots=True)
class Write:
    """One change of an index.

    Attributes:
        document_id: What is written.
        document: Its new content; None deletes it.
    """

    document_id: str
    document: Document | None

    @classmethod
    def put(cls, document: Document) -> "Write":
        """Store a document, replacing the one of this id.

        >>> Write.put(Document("1", "Gulls")).document_id
        '1'
        """
        return cls(document.id, document)

    @classmethod
    def delete(cls, document_id: str) -> "Write":
        """Remove a document.

        >>> Write.from_record(Write.delete("1").record())
        Write(document_id='1', document=None)
        """
        return cls(document_id, None)

    def record(self) -> dict[str, JsonValue]:
        """As JSON has it: `{"put": {...}}` or `{"delete": id}`."""
        if self.document is None:
            return {"delete": self.document_id}
        document = asdict(self.document)
        return {"put": {name: document[name] for name in ("id", "title", "text", "url", "metadata")}}

    @classmethod
    def from_record(cls, record: Mapping[str, JsonValue]) -> "Write":
        """The write of a record; ValueError when it is none."""
        if "put" in record:
            return cls.put(DOCUMENT.validate_python(record["put"]))
        if isinstance(document_id := record.get("delete"), str):
            return cls.delete(document_id)
        raise ValueError("neither put nor delete")


class Journal(Protocol):
    """The live writes of one index, numbered from 1. Nothing in it is ever changed.

    Attributes:
        unsettled: How many of the last writes another replica may still be storing, late and out of order.
    """

    unsettled: int

    def append(self, writes: Sequence[Write]) -> int:
        """Add writes in their order, durably, and return the position of the last.

        Raises:
            StoreError: They cannot be kept; whether some of them are is not known, so write them again.
        """

    def since(self, position: int) -> Iterator[tuple[int, Write]]:
        """Every write after `position`, ascending, with its own position.

        Raises:
            StoreError: The journal is damaged.
        """

    def position(self) -> int:
        """The last write's; 0 when there is none."""
