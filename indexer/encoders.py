"""Where documents are encoded: in this process, or in several.

Several small sessions encode more than one large one on many cores, since short texts leave cores idle; each costs the
memory of the model once more.
"""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from typing import NamedTuple

from indexer.catalog import open_encoder
from indexer.chunking import Chunker
from indexer.documents import Document
from indexer.encoding import Encoded, encode_passages
from indexer.settings import IndexSettings
from indexer.store import Chunking
from model.artifact import Artifact


class Encoders(NamedTuple):
    """Something that encodes windows of documents.

    Attributes:
        submit: Begins to encode some documents.
        at_once: Windows that are encoded at the same time.
    """

    submit: Callable[[Sequence[Document]], "Future[Encoded]"]
    at_once: int


class EncoderDied(RuntimeError):
    """A process that encoded is gone; the message says what to do."""


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


def result(future: "Future[Encoded]") -> Encoded:
    """The result of a future.

    Raises:
        EncoderDied: Its process is gone.
    """
    try:
        return future.result()
    except BrokenProcessPool as error:
        raise EncoderDied(
            "a process that encoded was killed, most likely for want of memory; give the same command again, with "
            "fewer --encoders or a smaller DUPMAE_MAX_BATCH_TOKENS"
        ) from error


_chunker: Chunker
"""Of a process that `encoding_apart` started."""


def _become_encoder(settings: IndexSettings, artifact: Artifact, chunking: Chunking | None) -> None:
    global _chunker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's to handle
    _chunker = Chunker(open_encoder(settings, artifact), chunking)


def _encode(documents: Sequence[Document]) -> Encoded:
    return encode_passages(_chunker, documents)
