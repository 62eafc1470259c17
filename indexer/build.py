"""From documents to a build that is ready to be published.

A build is written beside the published one and never touches it, so searching goes on, and a build that fails or is
interrupted costs nothing but its time. Documents go through in windows: many enough for the encoder to batch texts of
like length, few enough to keep memory bounded and progress visible.
"""

import hashlib
import json
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from indexer.collection import CollectionOptions
from indexer.dead_letters import DeadLetters
from indexer.documents import BadRecord, Document
from indexer.points import make_point
from indexer.store import Build, Engine, FieldType, Store, StoreError
from model.encoder import Encoder, Encoding, EncodingError

WINDOW_DOCUMENTS = 256
WINDOW_CHARACTERS = 2**18


class BuildError(Exception):
    """A build did not become ready; what is published did not change."""


class BuildInterrupted(BuildError):
    """Somebody stopped the build."""


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """What a build is told.

    Attributes:
        index: Name of the index it is for.
        fields: Type of each field that filters may use, such as `{"metadata.lang": "keyword"}`.
        source: Where the documents come from, for people.
        max_bad: Bad records that are put up with; one more fails the build.
        dead_letters: JSON lines file for bad records, made with the first one; None only counts them.
        collection: How the engine lays out the points.
    """

    index: str = "default"
    fields: Mapping[str, FieldType] = field(default_factory=dict)
    source: str = ""
    max_bad: int = 100
    dead_letters: Path | None = None
    collection: CollectionOptions = field(default_factory=CollectionOptions)


@dataclass(slots=True)
class Tally:
    """How far a build is; one object, changed in place and given to the progress callback."""

    stage: Literal["encoding", "optimizing", "ready"] = "encoding"
    documents: int = 0
    truncated: int = 0
    bad: int = 0


Progress = Callable[[Tally], None]


def ignore_progress(tally: Tally) -> None:
    """The callback of those who do not watch."""


def build_index(
    engine: Engine,
    encoder: Encoder,
    records: Iterable[Document | BadRecord],
    options: BuildOptions,
    progress: Progress = ignore_progress,
) -> Build:
    """Encode and store every document as a new build, verify its count, and leave it ready to be published.

    Args:
        engine: Where the build is made.
        encoder: Makes the vectors; its fingerprint becomes the build's.
        records: Documents with unique ids, and what could not become one.
        options: What the build is for and what it puts up with.
        progress: Called after every window and at each new stage.

    Returns:
        The facts of the build, in state `ready`.

    Raises:
        BuildError: No document at all, or a count that is not what was written.
        BuildInterrupted: Ctrl-C; the message says how to remove what is left.
        SourceError: A source could not be read, or held too many bad records.
        StoreError: The engine failed.
    """
    build = Build(
        id=new_build_id(),
        index=options.index,
        fingerprint=encoder.fingerprint,
        dense_dim=encoder.artifact.manifest.dense_dim,
        created=datetime.now(UTC),
        source=options.source,
        fields=dict(options.fields),
        collection=options.collection,
    )
    with closing(engine.create(build)) as store:
        try:
            with DeadLetters(options.dead_letters, options.max_bad) as dead:
                facts = _fill(store, encoder, records, dead, progress)
        except KeyboardInterrupt as error:
            _mark_failed(engine, build)
            raise BuildInterrupted(
                f"interrupted; what is published did not change, and build {build.id} is left unpublished "
                f"(remove it with `dupmae index delete {build.id} --index {build.index}`)"
            ) from error
        except BaseException:
            _mark_failed(engine, build)
            raise
        ready = build.model_copy(update=facts)
        engine.save(ready)
    return ready


def new_build_id() -> str:
    """A name that sorts by time, with a random end for builds of the same second."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"


def source_digest(documents: Iterable[Document]) -> str:
    """SHA-256 over ids and contents in their order, whatever files they came from."""
    sha = hashlib.sha256()
    for document in documents:
        sha.update(_digest_line(document))
    return sha.hexdigest()


def windows(documents: Iterable[Document]) -> Iterator[list[Document]]:
    """Consecutive documents, `WINDOW_DOCUMENTS` or at least `WINDOW_CHARACTERS` at a time."""
    window: list[Document] = []
    characters = 0
    for document in documents:
        window.append(document)
        characters += len(document.passage)
        if len(window) == WINDOW_DOCUMENTS or characters >= WINDOW_CHARACTERS:
            yield window
            window, characters = [], 0
    if window:
        yield window


def _fill(
    store: Store,
    encoder: Encoder,
    records: Iterable[Document | BadRecord],
    dead: DeadLetters,
    progress: Progress,
) -> dict[str, object]:
    tally, sha = Tally(), hashlib.sha256()
    for window in windows(_living(records, dead)):
        encoded = _encode(encoder, window, dead)
        store.upsert([make_point(document, encoding.vector) for document, encoding in encoded])
        for document in window:
            sha.update(_digest_line(document))
        tally.documents += len(encoded)
        tally.truncated += sum(encoding.truncated for _, encoding in encoded)
        tally.bad = dead.count
        progress(tally)
    tally.bad = dead.count
    store.flush()
    tally.stage = "optimizing"
    progress(tally)
    store.optimize()
    _verify(store, tally)
    tally.stage = "ready"
    progress(tally)
    return {
        "documents": tally.documents,
        "truncated": tally.truncated,
        "dead": dead.count,
        "source_digest": sha.hexdigest(),
        "state": "ready",
    }


def _living(records: Iterable[Document | BadRecord], dead: DeadLetters) -> Iterator[Document]:
    for record in records:
        if isinstance(record, BadRecord):
            dead.add(record)
        else:
            yield record


def _encode(encoder: Encoder, window: list[Document], dead: DeadLetters) -> list[tuple[Document, Encoding]]:
    """Each document with its encoding, without those that have none."""
    while window:
        try:
            encodings = encoder.encode_documents([document.passage for document in window])
        except EncodingError as error:
            refused = set(error.positions)
            for position in sorted(refused):
                document = window[position]
                dead.add(BadRecord(f"document {document.id!r}", 0, error.reason, json.dumps(asdict(document))))
            window = [document for position, document in enumerate(window) if position not in refused]
        else:
            return list(zip(window, encodings, strict=True))
    return []


def _verify(store: Store, tally: Tally) -> None:
    if tally.documents == 0:
        raise BuildError(f"no document to index ({tally.bad} bad records); build {store.build.id} is not usable")
    if (stored := store.count()) != tally.documents:
        raise BuildError(
            f"build {store.build.id} holds {stored} documents though {tally.documents} were written; build it again"
        )


def _digest_line(document: Document) -> bytes:
    return f"{document.id}\0{document.content_hash}\n".encode()


def _mark_failed(engine: Engine, build: Build) -> None:
    with suppress(StoreError):  # an engine that is away cannot be told, and must not hide what went wrong first
        engine.save(build.model_copy(update={"state": "failed"}))
