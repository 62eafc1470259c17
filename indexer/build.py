"""From documents to a build that is ready to be published.

A build is written beside the published one and never touches it, so searching goes on. Reading, encoding and writing
overlap; a document counts as done once its points are durable and its entry in the ledger is. So a build that was
killed goes on where it was when the same command is given again, and a document is encoded once, however often that
happens: what this build holds is skipped, what an older build of the same model holds unchanged is copied.

Everything that is read is accounted for: read = encoded + unchanged + dead.
"""

import hashlib
import json
import secrets
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from pathlib import Path

from indexer.chunking import Chunker
from indexer.collection import CollectionOptions
from indexer.dead_letters import DeadLetters
from indexer.documents import BadRecord, Document
from indexer.encoders import Encoders, encoding_here
from indexer.filling import Filling, Tally, digest_line
from indexer.ledger import Ledger, ledger_path, plan_of
from indexer.patience import patiently
from indexer.reconcile import reconcile, remove
from indexer.reuse import opened_base
from indexer.store import Build, BuildLocked, Chunking, Engine, FieldType, State, Store, StoreError
from model.encoder import Encoder
from model.rarity import Rarity

RARITY_PASSAGES = 200_000
"""In which words are counted, at most. Words that so many do not tell apart are all very rare."""


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
        source: Where the documents come from, and how they are read: for people, and part of the plan.
        chunking: How long documents become passages; None cuts each to what the model reads.
        max_bad: Bad records that are put up with; one more fails the build.
        dead_letters: JSON lines file for bad records, made with the first one; None only counts them.
        data: Folder of the ledgers; None keeps this build's in a temporary file, and it cannot be gone on with.
        restart: Begin anew, whatever is left of another run.
        reuse: Copy the vectors of documents that an older build holds unchanged.
        total: Records in the sources, if that is known.
        patience_s: Seconds that a store may be away before the build fails.
        collection: How the engine lays out the points.
    """

    index: str = "default"
    fields: Mapping[str, FieldType] = field(default_factory=dict)
    source: str = ""
    chunking: Chunking | None = field(default_factory=Chunking)
    max_bad: int = 100
    dead_letters: Path | None = None
    data: Path | None = None
    restart: bool = False
    reuse: bool = True
    total: int | None = None
    patience_s: float = 300.0
    collection: CollectionOptions = field(default_factory=CollectionOptions)


Progress = Callable[[Tally], None]


def ignore_progress(tally: Tally) -> None:
    """The callback of those who do not watch."""


def build_index(
    engine: Engine,
    encoder: Encoder,
    records: Iterable[Document | BadRecord],
    options: BuildOptions,
    progress: Progress = ignore_progress,
    *,
    encoding: AbstractContextManager[Encoders] | None = None,
) -> Build:
    """Encode and store every document as a build, verify its count, and leave it ready to be published.

    An unfinished build of the same plan is gone on with.

    Args:
        engine: Where the build is made.
        encoder: Makes the vectors; its fingerprint becomes the build's.
        records: Documents, and what could not become one. An id that comes again makes a bad record.
        options: What the build is for and what it puts up with.
        progress: Called as documents become durable and at each new stage.
        encoding: Where to encode; in a thread of this process when None.

    Returns:
        The facts of the build, in state `ready`.

    Raises:
        BuildError: No document at all, or a store that does not hold what was written.
        BuildInterrupted: Ctrl-C; the same command goes on from there.
        BuildLocked: Another process is making this build.
        ChunkingError: The model cannot read such passages.
        SourceError: A source could not be read, or held too many bad records.
        StoreError: The engine failed, or the disk is full.
    """
    chunker = Chunker(encoder, options.chunking)
    with ExitStack() as stack:
        data = options.data or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        build, ledger = _begin(engine, encoder, options, data)
        stack.callback(ledger.close)
        store = stack.enter_context(closing(_opened(engine, build)))
        dead = stack.enter_context(DeadLetters(options.dead_letters, options.max_bad))
        making = _Making(engine, build, store, options, progress)
        try:
            with opened_base(engine, build) if options.reuse else nullcontext() as base:
                filling = Filling(
                    store,
                    ledger,
                    dead,
                    making.tally,
                    base=base,
                    patience_s=options.patience_s,
                    watch=progress,
                    save=making.save,
                    optimize=partial(making.optimize, then="encoding"),
                )
                making.enter("encoding")
                with encoding or encoding_here(chunker) as encoders:
                    digest = filling.run(records, encoders)
            _check_filled(making, ledger, dead)
            making.optimize(then="verifying")
            _check_stored(making, ledger)
            rarity = patiently(partial(_rarity, store, encoder), for_s=options.patience_s)
            making.facts |= {"source_digest": digest, "rarity": rarity}
            making.enter("ready")
        except KeyboardInterrupt as error:
            making.fail("interrupted")
            raise BuildInterrupted(
                f"interrupted; what is published did not change, and the same command goes on with build {build.id} "
                f"(or remove it: `dupmae index delete {build.id} --index {build.index}`)"
            ) from error
        except BaseException as error:
            making.fail(str(error))
            raise
    return making.build


def new_build_id() -> str:
    """A name that sorts by time, with a random end for builds of the same second."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"


def source_digest(documents: Iterable[Document]) -> str:
    """SHA-256 over ids and contents in their order, whatever files they came from."""
    sha = hashlib.sha256()
    for document in documents:
        sha.update(digest_line(document))
    return sha.hexdigest()


def plan(fingerprint: str, options: BuildOptions) -> str:
    """Digest of everything that decides what a build will hold, but for the content of its sources."""
    parts = {
        "fingerprint": fingerprint,
        "source": options.source,
        "fields": dict(options.fields),
        "chunking": options.chunking.model_dump() if options.chunking else None,
        "collection": options.collection.model_dump(),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


class _Making:
    """A build on its way: its state, its facts, and whom to tell."""

    def __init__(self, engine: Engine, build: Build, store: Store, options: BuildOptions, progress: Progress) -> None:
        self.build, self.store = build, store
        self.tally, self.patience_s = Tally(stage="reading", total=options.total), options.patience_s
        self.facts: dict[str, object] = {}
        self._engine, self._progress = engine, progress
        self._before_s, self._began = build.seconds, time.monotonic()

    def enter(self, state: State) -> None:
        """Go on to the next stage."""
        self.tally.stage = state
        self.save()
        self._progress(self.tally)

    def optimize(self, *, then: State) -> None:
        """Build the indexes of what is stored, and go on to a stage."""
        self.enter("indexing")
        patiently(self.store.optimize, for_s=self.patience_s)
        self.enter(then)

    def save(self) -> None:
        """Write the facts down as they are now, so that others see how far the build is."""
        tally, spent = self.tally, time.monotonic() - self._began
        counts = {
            "documents": tally.documents,
            "passages": tally.passages,
            "truncated": tally.truncated,
            "unchanged": tally.unchanged,
            "dead": tally.bad,
            "read": tally.read,
            "total": tally.total,
            "seconds": round(self._before_s + spent, 1),
            "rate": round((tally.read - tally.resumed) / spent, 1) if spent else 0.0,
        }
        self.build = self.build.model_copy(update={**counts, **self.facts, "state": tally.stage, "reason": ""})
        patiently(partial(self._engine.save, self.build), for_s=self.patience_s)

    def fail(self, reason: str) -> None:
        """Say why the build is not ready."""
        failed = self.build.model_copy(update={"state": "failed", "reason": reason[:500]})
        with suppress(StoreError, OSError):  # it must not hide what went wrong first
            self._engine.save(failed)


def _begin(engine: Engine, encoder: Encoder, options: BuildOptions, data: Path) -> tuple[Build, Ledger]:
    """The unfinished build of this plan, or a new one, with its ledger."""
    wanted = plan(encoder.fingerprint, options)
    for build in engine.builds(options.index):
        path = ledger_path(data, options.index, build.id)
        if build.state != "ready" and not options.restart and plan_of(path) == wanted:
            return build.model_copy(update={"journal": 0}), Ledger(path, wanted)
    build = Build(
        id=new_build_id(),
        index=options.index,
        fingerprint=encoder.fingerprint,
        dense_dim=encoder.artifact.manifest.dense_dim,
        created=datetime.now(UTC),
        source=options.source,
        fields=dict(options.fields),
        chunking=options.chunking,
        collection=options.collection,
        state="reading",
    )
    ledger = Ledger(ledger_path(data, options.index, build.id), wanted)
    try:
        engine.create(build).close()
    except BaseException:
        ledger.close()
        raise
    return build, ledger


def _opened(engine: Engine, build: Build) -> Store:
    try:
        return engine.open(build.index, build.id, write=True)
    except BuildLocked:
        raise
    except StoreError as error:
        raise StoreError(f"{error} Give --restart to begin anew.") from error


def _check_filled(making: _Making, ledger: Ledger, dead: DeadLetters) -> None:
    build, tally = making.build, making.tally
    if not tally.documents:
        raise BuildError(f"no document to index ({dead.count} bad records); build {build.id} is not usable")
    assert tally.read == tally.documents + dead.count, (tally, dead.count)
    assert tally.documents == ledger.totals().documents, (tally, ledger.totals())


def _rarity(store: Store, encoder: Encoder) -> Rarity | None:
    """How rare words are in the stored passages. Ids are hashes, so the first of many are a random sample of them."""
    vectors = (point.vector for point in islice(store.scroll(), RARITY_PASSAGES))
    return Rarity.wanted(vectors, encoder.artifact.manifest)


def _check_stored(making: _Making, ledger: Ledger) -> None:
    """Hold the store against the ledger; what it lacks is encoded by the next run of the same command."""
    stored = patiently(making.store.count, for_s=making.patience_s)
    if stored == ledger.totals().passages:
        return
    found = reconcile(making.store, ledger)
    remove(making.store, ledger, found)
    if found.missing:
        raise BuildError(
            f"build {making.build.id} holds {stored} passages, and {len(found.missing)} documents have lost some; give "
            "the same command again to index those"
        )
