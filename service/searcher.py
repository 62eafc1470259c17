"""Text to hits without a web framework: one encoder, one build. HTTP and `dupmae search` answer through it alike."""

import math
from collections.abc import Callable, Iterable
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from itertools import islice
from threading import Lock
from time import perf_counter
from typing import NamedTuple, Self
from weakref import WeakValueDictionary

import numpy as np

from indexer.catalog import kept_artifact, open_encoder, open_engine
from indexer.grouping import GroupBy, Grouped, Wanted, grouped_hits
from indexer.live import LiveBuild, Metadata, metadata_of
from indexer.points import passage_text, place, point_id
from indexer.store import DEFAULT_DEPTH, Build, Engine, Filter, Hit, Mode, Point, Store
from model.artifact import ArtifactError
from model.encoder import Encoder, Encoding, EncodingError
from model.vector import FusedVector
from service.explain import Explanation, Question, Word, explain
from service.settings import Settings
from service.snippet import READ
from service.splitter import Splitter

SHOWN = 80
"""Characters of a query that an error message repeats."""


class QueryRefused(ValueError):
    """This query has no vector."""

    def __init__(self, query: str) -> None:
        shown = query if len(query) <= SHOWN else query[:SHOWN] + "…"
        super().__init__(f"the query {shown!r} holds no word the model can weigh; ask with at least one word")


class DocumentNotFound(LookupError):
    """No document of this id in the index."""


class Answer(NamedTuple):
    """What a search found, and how long its stages took.

    Attributes:
        encoding: The encoded query.
        hits: Best first.
        complete: See `Grouped`.
        took: Seconds by stage.
    """

    encoding: Encoding
    hits: list[Hit]
    complete: bool
    took: dict[str, float]


class Searcher:
    """One build and the encoder that made it.

    Attributes:
        encoder: Encodes the queries.
        store: Holds the passages.
    """

    def __init__(self, encoder: Encoder, store: Store, *, depth: int = DEFAULT_DEPTH) -> None:
        """Pair an encoder with a build.

        Raises:
            ArtifactError: The build was encoded by another artifact.
        """
        build = store.build
        if build.fingerprint not in {encoder.fingerprint, *encoder.artifact.manifest.compatible_with}:
            raise ArtifactError(
                f"index {build.index!r} was encoded by artifact {build.fingerprint[:12]}, not by "
                f"{encoder.fingerprint[:12]} ({encoder.artifact.path}); build the index again with this artifact"
            )
        self.encoder = encoder
        self.store = store
        self._depth = depth
        self._splitter = Splitter(encoder)

    @property
    def build(self) -> Build:
        """The facts of the build that answers."""
        return self.store.build

    def search(
        self,
        query: str,
        *,
        mode: Mode = "fused",
        limit: int = 10,
        filter: Filter | None = None,
        group_by: GroupBy = "document",
    ) -> Answer:
        """Encode one query and retrieve its hits.

        Raises:
            QueryRefused: The query has no vector.
            StoreError: As `Store.search`.
        """
        began = perf_counter()
        encoding = self.encode(query)
        encoded = perf_counter()
        found = self.retrieve(encoding.vector, Wanted(mode, filter, group_by), limit=limit)
        return Answer(
            encoding, found.hits, found.complete, {"encode": encoded - began, "retrieve": perf_counter() - encoded}
        )

    def encode(self, query: str) -> Encoding:
        """The encoding of one query as the build is asked it; `QueryRefused` when it has none."""
        try:
            return self.asked(self.encoder.encode_queries([query])[0])
        except EncodingError as error:
            raise QueryRefused(query) from error

    def asked(self, encoding: Encoding, *, blindly: bool = False) -> Encoding:
        """An encoding as the build is asked it: see `Build.weighed`."""
        return replace(encoding, vector=self.build.weighed(encoding.vector, blindly=blindly))

    def retrieve(
        self,
        query: FusedVector,
        wanted: Wanted = Wanted(),  # noqa: B008 - frozen
        *,
        limit: int,
        depth: int | None = None,
        most: int | None = None,
    ) -> Grouped:
        """As `grouped_hits`, at the depth of the settings unless another is given."""
        return grouped_hits(self.store, query, wanted, limit=limit, depth=depth or self._depth, most=most)

    def document(self, document_id: str, sees: Callable[[Metadata], bool] = lambda metadata: True) -> Point:
        """The first passage of a document.

        Args:
            document_id: As its source gave it.
            sees: Asked about its metadata: what may not be seen is not there.

        Raises:
            DocumentNotFound: The index holds no such document.
        """
        found = self.store.get([point_id(document_id)])
        if not found or not sees(metadata_of(found[0])):
            raise DocumentNotFound(f"index {self.build.index!r} holds no document {document_id!r}")
        return found[0]

    def passages(self, first: Point, document_id: str, *, step: int = 1) -> list[Point]:
        """The passages of a document from its first on, every `step`-th of them."""
        rest = [point_id(document_id, number) for number in range(step, place(first).of, step)]
        return [first, *self.store.get(rest)] if rest else [first]

    def question(self, words: Iterable[Word], vector: FusedVector) -> Question:
        """A query's side of explanations.

        Args:
            words: Those of its text.
            vector: Its encoding.
        """
        return Question.of(vector, words, self.encoder.vocabulary)

    def explain(self, question: Question, point: Point) -> Explanation:
        """Why a stored passage matches a query, whether a search found it or not."""
        text = passage_text(point, self.build.chunking)
        return explain(question, point.vector, self._splitter.words_of(text[:READ], question.forms))

    def words(self, text: str) -> list[Word]:
        """The distinct words of a text in their order, or of the beginning of a very long one."""
        return self._splitter.words(text[:READ])

    def passage_words(self, point: Point) -> list[Word]:
        """The words of a passage, with the title that it was encoded with."""
        return self.words(passage_text(point, self.build.chunking))

    def warm_up(self) -> None:
        """Run model and store once, so that the first caller does not pay for lazy initialization."""
        words = islice((entry for entry in self.encoder.vocabulary if entry.isalpha()), 8)
        with suppress(QueryRefused):
            self.search(" ".join(words), limit=1)

    def probe(self) -> None:
        """Ask the store for what no document holds, the padding token: as a search does, and at hardly any cost.

        Raises:
            StoreError: It does not answer, or not as it should.
        """
        nothing = FusedVector(np.zeros(self.build.dense_dim, np.float32), np.array([0]), np.ones(1, np.float32))
        self.store.search(nothing, limit=1, depth=1)

    def close(self) -> None:
        """Close the store; the encoder has nothing to close."""
        self.store.close()


class Searchers:
    """Opens indexes by name; indexes that one artifact encoded share one encoder. Thread-safe.

    Attributes:
        engine: Holds the builds.
    """

    def __init__(self, engine: Engine, settings: Settings) -> None:
        self.engine = engine
        self._settings = settings
        self._encoders: WeakValueDictionary[str, Encoder] = WeakValueDictionary()
        self._opened: set[Searcher] = set()
        self._lock = Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def published(self, index: str) -> Build:
        """The facts of the build that `open` would open; see `Engine.published`."""
        return self.engine.published(index)

    def open(self, index: str, *, write: bool = False) -> Searcher:
        """The published build of an index with its encoder, which is loaded once per fingerprint.

        Raises:
            BuildLocked: Embedded engine only: another process has it open for writing, or for reading if `write`.
            IndexNotFound: Nothing is published under this name; the message names the indexes that are.
            ArtifactError: The artifact of the build is missing or damaged.
            ProviderError: The encoder cannot run where the settings want it.
            StoreError: The engine failed.
        """
        build = self.engine.published(index)
        encoder = self._encoder(build)
        with ExitStack() as opening:
            store = opening.enter_context(closing(self.engine.open(index, build.id, write=write)))
            searcher = Searcher(encoder, store, depth=self._settings.depth)
            opening.pop_all()
        self._opened.add(searcher)
        return searcher

    def live(self, searcher: Searcher) -> LiveBuild:
        """What writes to the build of a searcher that was opened with `write`."""
        return LiveBuild(self.engine, searcher.store, searcher.encoder)

    def release(self, searcher: Searcher) -> None:
        """Close a searcher that nobody uses any more. Its encoder goes with its last user."""
        self._opened.discard(searcher)
        searcher.close()

    def close(self) -> None:
        """Close every opened store, then the engine."""
        with ExitStack() as stack:
            stack.callback(self.engine.close)
            while self._opened:
                stack.callback(self._opened.pop().close)

    def _encoder(self, build: Build) -> Encoder:
        with self._lock:
            encoder = self._encoders.get(build.fingerprint)
            if encoder is None:
                artifact = kept_artifact(self._settings, build)
                encoder = self._encoders[build.fingerprint] = open_encoder(self._settings, artifact)
            return encoder


def best_passage(query: FusedVector, passages: Iterable[Point]) -> Point:
    """The passage that a search would show of its document: the first of the best in order of id."""
    return min(passages, key=lambda passage: (-query.score(passage.vector).score, passage.id))


def open_searchers(settings: Settings) -> Searchers:
    """The indexes of the settings' engine. A server that is asked longer than a request may take is given up.

    Raises:
        StoreUnavailable: The engine cannot be reached.
    """
    return Searchers(open_engine(settings, timeout_s=math.ceil(settings.timeout_ms / 1000)), settings)
