"""Where documents are encoded: in this process, or in several.

One process keeps its cores busy by a batch on each. Several also tokenize and pack at the same time, which the threads
of one process take turns at; each costs the memory of the model once more.
"""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from threading import Thread
from typing import NamedTuple

from indexer.catalog import open_encoder
from indexer.chunking import Chunker
from indexer.documents import Document
from indexer.encoding import Encoded, encode_passages
from indexer.settings import IndexSettings
from indexer.store import Chunking
from model.artifact import Artifact


class EncoderDied(RuntimeError):
    """A process that encoded is gone; the message says what to do."""


class Encoders(NamedTuple):
    """Something that encodes windows of documents.

    Attributes:
        submit: Begins to encode some documents.
        at_once: Windows that are encoded at the same time.
        dead: What `submit` and its results raise when something that encodes is gone.
    """

    submit: Callable[[Sequence[Document]], "Future[Encoded]"]
    at_once: int
    dead: tuple[type[Exception], ...] = (BrokenProcessPool,)

    def begin(self, documents: Sequence[Document]) -> "Future[Encoded]":
        """Begin to encode some documents.

        Raises:
            EncoderDied: Something that encodes is gone.
        """
        with self._naming():
            return self.submit(documents)

    def result(self, future: "Future[Encoded]") -> Encoded:
        """What became of them.

        Raises:
            EncoderDied: As `begin`.
        """
        with self._naming():
            return future.result()

    @contextmanager
    def _naming(self) -> Iterator[None]:
        try:
            yield
        except self.dead as error:
            raise EncoderDied(
                f"what encoded is gone, killed for want of memory perhaps, or could not start ({error}); give the "
                "same command again, with fewer --encoders or a smaller DUPMAE_MAX_BATCH_TOKENS"
            ) from error


@contextmanager
def encoding_here(chunker: Chunker) -> Iterator[Encoders]:
    """Encode in a thread of this process, so that reading and writing go on meanwhile."""
    with ThreadPoolExecutor(1, thread_name_prefix="encode") as pool:
        try:
            yield Encoders(lambda documents: pool.submit(encode_passages, chunker, documents), 1)
        finally:
            pool.shutdown(cancel_futures=True)


@contextmanager
def encoding_apart(
    settings: IndexSettings, artifact: Artifact, chunking: Chunking | None, processes: int
) -> Iterator[Encoders]:
    """Encode in `processes` processes, which share the cores."""
    cores = settings.threads or len(os.sched_getaffinity(0))
    share = settings.model_copy(update={"threads": max(1, cores // processes)})
    made_of = (share, artifact, chunking)
    with ProcessPoolExecutor(processes, get_context("spawn"), _become_encoder, made_of) as pool:
        try:
            yield Encoders(lambda documents: pool.submit(_encode, documents), processes)
        finally:
            pool.shutdown(cancel_futures=True)


_chunker: Chunker
"""Of a process that `encoding_apart` started."""


def _become_encoder(settings: IndexSettings, artifact: Artifact, chunking: Chunking | None) -> None:
    global _chunker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's to handle
    Thread(target=_end_with_parent, daemon=True).start()
    _chunker = Chunker(open_encoder(settings, artifact), chunking)


def _encode(documents: Sequence[Document]) -> Encoded:
    return encode_passages(_chunker, documents)


def _end_with_parent() -> None:
    """A parent that was killed cannot end its children."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
