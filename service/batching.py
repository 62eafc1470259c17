"""Queries that arrive together are encoded together, without a timer.

While one batch is in the model the next gathers: an idle service answers at once, a busy one fills its batches by
itself. The price is one worker thread: a query never overtakes a batch that has begun.

What callers may rely on: nobody gets another's vector; work nobody waits for any more never reaches the model; an
encoder error reaches its batch and no other; every call returns or raises, also when the batcher closes.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import perf_counter
from types import TracebackType
from typing import Self

from model.encoder import Encoding, EncodingError
from service.searcher import QueryRefused

Encode = Callable[[Sequence[str]], Sequence[Encoding]]


class QueueFull(Exception):
    """As many queries wait for the encoder as may; ask again later."""


class BatcherClosed(Exception):
    """The batcher takes no more queries: the service is shutting down."""


class EncoderFailed(Exception):
    """The encoder broke on the batch this query was in; the cause says how."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """A query's encoding and how it got there.

    Attributes:
        encoding: What the encoder made of the text.
        queued: Seconds spent waiting for the batch to begin.
        encoded: Seconds the whole batch took.
        batch: Queries in that batch.
    """

    encoding: Encoding
    queued: float
    encoded: float
    batch: int


@dataclass(frozen=True, slots=True)
class _Waiting:
    text: str
    deadline: float | None
    since: float


_Batch = dict[asyncio.Future[Encoded], _Waiting]


class MicroBatcher:
    """Feeds one encoder from many callers, one batch at a time, in a thread of its own.

    Args:
        encode: Texts to encodings, in order; may raise `EncodingError` for single texts.
        max_batch: Texts per call of `encode`.
        max_queue: Texts that may wait while a batch is in the model.
    """

    def __init__(self, encode: Encode, *, max_batch: int, max_queue: int) -> None:
        self._encode = encode
        self._max_batch = max_batch
        self._max_queue = max_queue
        self._waiting: _Batch = {}
        self._running: asyncio.Task[None] | None = None
        self._closed = False
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="encoder")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def depth(self) -> int:
        """Queries that wait for a batch to begin."""
        return len(self._waiting)

    async def encode(self, text: str, *, deadline: float | None = None) -> Encoded:
        """The encoding of one text.

        Args:
            text: A query.
            deadline: Time of the event loop after which nobody wants the answer; never unless given.

        Raises:
            QueueFull: `max_queue` texts are waiting.
            QueryRefused: The text has no vector.
            EncoderFailed: The encoder broke on this batch.
            BatcherClosed: `close` was called.
            TimeoutError: The deadline passed.
        """
        if self._closed:
            raise BatcherClosed("the service is shutting down; ask another replica")
        if len(self._waiting) >= self._max_queue:
            raise QueueFull(f"{self._max_queue} queries are waiting for the encoder; ask again in a second")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Encoded] = loop.create_future()
        self._waiting[future] = _Waiting(text, deadline, perf_counter())
        if self._running is None:
            self._running = loop.create_task(self._run())
        try:
            async with asyncio.timeout_at(deadline):
                return await future
        finally:
            self._waiting.pop(future, None)

    async def close(self) -> None:
        """Refuse new texts, answer those that wait, and end the thread."""
        self._closed = True
        if self._running is not None:
            await self._running
        self._worker.shutdown()

    async def _run(self) -> None:
        try:
            while batch := self._gather():
                await self._encode_batch(batch)
        finally:
            self._running = None

    def _gather(self) -> _Batch:
        """Take the oldest texts that somebody still waits for; empty when nobody does."""
        now = asyncio.get_running_loop().time()
        batch: _Batch = {}
        while self._waiting and len(batch) < self._max_batch:
            future = next(iter(self._waiting))
            waiting = self._waiting.pop(future)
            if not future.done() and (waiting.deadline is None or waiting.deadline > now):
                batch[future] = waiting
        return batch

    async def _encode_batch(self, batch: _Batch) -> None:
        began = perf_counter()
        texts = [waiting.text for waiting in batch.values()]
        outcomes: Sequence[Encoding | Exception]
        try:
            outcomes = await asyncio.get_running_loop().run_in_executor(self._worker, _each, self._encode, texts)
        except Exception as error:  # noqa: BLE001 - whatever the model raises, its callers must hear of it, or they hang
            outcomes = [_failed(error) for _ in texts]
        took = perf_counter() - began
        for (future, waiting), outcome in zip(batch.items(), outcomes, strict=True):
            if future.done():
                continue
            if isinstance(outcome, Exception):
                future.set_exception(outcome)
            else:
                future.set_result(Encoded(outcome, began - waiting.since, took, len(batch)))


def _each(encode: Encode, texts: Sequence[str]) -> list[Encoding | Exception]:
    """One outcome per text: the texts an `EncodingError` names are refused, the others are encoded without them."""
    outcomes: dict[int, Encoding | Exception] = {}
    left = list(range(len(texts)))
    while left:
        try:
            encodings = encode([texts[position] for position in left])
        except EncodingError as error:
            if not error.positions:
                raise
            refused = {left[position] for position in error.positions}
            outcomes |= {position: QueryRefused(texts[position]) for position in refused}
            left = [position for position in left if position not in refused]
        else:
            outcomes |= zip(left, encodings, strict=True)
            break
    return [outcomes[position] for position in range(len(texts))]


def _failed(error: Exception) -> EncoderFailed:
    failure = EncoderFailed(f"the encoder failed: {type(error).__name__}")
    failure.__cause__ = error
    return failure
