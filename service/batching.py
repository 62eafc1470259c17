"""Texts that arrive together are encoded together, without a timer.

While one batch is in the model the next gathers: an idle service answers at once, a busy one fills its batches by
itself. The price is one worker thread: a text never overtakes a batch that has begun. Queries and documents share one
queue and its order, so neither can starve the other.

A batch has a bound on its tokens, since that is what its time and memory depend on. So texts are tokenized before they
wait, and never twice.

What callers may rely on: nobody gets another's vector; work nobody waits for any more never reaches the model; an
encoder error reaches its batch and no other; every call returns or raises, also when the batcher closes.
"""

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import perf_counter
from types import TracebackType
from typing import Literal, Self

from model.encoder import Encoding, EncodingError, NoWords, Tokenized
from service.queueing import DrainRate
from service.searcher import QueryRefused
from service.spans import Facts, span

Role = Literal["query", "document"]

Tokenize = Callable[[str], Tokenized]
Encode = Callable[[Sequence[Tokenized]], Sequence[Encoding]]

SHORT = 512
"""Characters that are tokenized on the event loop, half a millisecond at most; for more a thread is worth its price."""

AT_ONCE = 32
"""Texts of one caller that wait together: enough to fill a batch, too few to fill the queue."""


class BatcherClosed(Exception):
    """The batcher takes no more texts: the service is shutting down."""


class EncoderFailed(Exception):
    """The encoder broke on the batch this text was in; the cause says how."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """A text's encoding and how it got there.

    Attributes:
        encoding: What the encoder made of the text.
        queued: Seconds until the batch began, tokenizing included.
        encoded: Seconds the whole batch took.
        batch: Texts in that batch.
    """

    encoding: Encoding
    queued: float
    encoded: float
    batch: int

    @property
    def facts(self) -> Facts:
        """What a trace says of it; `batch_size` is 0 for a vector that was remembered."""
        return {
            "tokens": self.encoding.tokens,
            "batch_size": self.batch,
            "queued_ms": round(1000 * self.queued, 3),
            "encoded_ms": round(1000 * self.encoded, 3),
        }


@dataclass(frozen=True, slots=True)
class _Waiting:
    text: str
    role: Role
    tokenized: Tokenized
    deadline: float | None
    since: float


_Batch = dict[asyncio.Future[Encoded], _Waiting]


class MicroBatcher:
    """Feeds one encoder from many callers, one batch at a time, in a thread of its own.

    Args:
        tokenize: How a text of each role is made ready for `encode`.
        encode: Tokenized texts to encodings, in order; may raise `EncodingError` for single texts.
        max_batch: Texts per call of `encode`.
        max_tokens: Tokens per call of `encode`; a single longer text still goes alone.
        max_queue: Texts that may wait while a batch is in the model.
        max_wait_s: How long they may have to, by the time that texts took lately.
    """

    def __init__(
        self,
        tokenize: Mapping[Role, Tokenize],
        encode: Encode,
        *,
        max_batch: int,
        max_tokens: int,
        max_queue: int,
        max_wait_s: float = math.inf,
    ) -> None:
        self._tokenizers = tokenize
        self._encode = encode
        self._max_batch = max_batch
        self._max_tokens = max_tokens
        self._max_queue = max_queue
        self._tokenizing = 0
        self._waiting: _Batch = {}
        self._running: asyncio.Task[None] | None = None
        self._rate = DrainRate(max_wait_s)
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
        """Texts that wait for a batch to begin."""
        return len(self._waiting) + self._tokenizing

    @property
    def busy(self) -> bool:
        """Whether the encoder works, or somebody waits for it."""
        return self._running is not None or self.depth > 0

    async def encode(self, text: str, *, role: Role = "query", deadline: float | None = None) -> Encoded:
        """The encoding of one text.

        Args:
            text: A query, or a document or passage of one.
            role: Which of the two.
            deadline: Time of the event loop after which nobody wants the answer; never unless given.

        Raises:
            QueueFull: `max_queue` texts are waiting, or so many that this one would wait too long.
            QueryRefused: The query has no vector.
            NoWords: The document has no vector.
            EncoderFailed: The encoder broke on this batch.
            BatcherClosed: `close` was called.
            TimeoutError: The deadline passed.
        """
        self._check_open()
        self._rate.check(self.depth, f"{self.depth} texts are waiting for the encoder", most=self._max_queue)
        since = perf_counter()
        async with asyncio.timeout_at(deadline):
            tokenized = await self._tokenized(text, role)
            self._check_open()
            return await self._outcome(_Waiting(text, role, tokenized, deadline, since))

    async def encode_all(
        self, texts: Sequence[str], *, role: Role, deadline: float | None = None
    ) -> list[Encoded | QueryRefused | NoWords]:
        """What became of each text of one caller, in order: its encoding, or why it has no vector.

        They wait for the encoder `AT_ONCE` at a time, so that one long list does not fill the queue. The first other
        error, as of `encode`, is raised, and what still waits is dropped.
        """
        room = asyncio.Semaphore(AT_ONCE)

        async def one(text: str) -> Encoded | QueryRefused | NoWords:
            async with room:
                try:
                    return await self.encode(text, role=role, deadline=deadline)
                except (QueryRefused, NoWords) as refusal:
                    return refusal

        with span("encode", role=role, texts=len(texts)):
            tasks = [asyncio.create_task(one(text)) for text in texts]
            try:
                return await asyncio.gather(*tasks)
            finally:
                for task in tasks:
                    task.cancel()

    async def close(self) -> None:
        """Refuse new texts, answer those that wait, and end the thread."""
        self._closed = True
        if self._running is not None:
            await self._running
        self._worker.shutdown()

    def _check_open(self) -> None:
        if self._closed:
            raise BatcherClosed("the service is shutting down; ask another replica")

    async def _tokenized(self, text: str, role: Role) -> Tokenized:
        tokenize = self._tokenizers[role]
        if len(text) <= SHORT:
            return tokenize(text)
        self._tokenizing += 1
        try:
            return await asyncio.to_thread(tokenize, text)
        finally:
            self._tokenizing -= 1

    async def _outcome(self, waiting: _Waiting) -> Encoded:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Encoded] = loop.create_future()
        self._waiting[future] = waiting
        if self._running is None:
            self._running = loop.create_task(self._run())
        try:
            return await future
        finally:
            self._waiting.pop(future, None)

    async def _run(self) -> None:
        try:
            while batch := self._gather():
                await self._encode_batch(batch)
        finally:
            self._running = None

    def _gather(self) -> _Batch:
        """Take the oldest texts that somebody still waits for, as many as are allowed; empty when nobody does."""
        now = asyncio.get_running_loop().time()
        batch: _Batch = {}
        tokens = 0
        while self._waiting and len(batch) < self._max_batch:
            future, waiting = next(iter(self._waiting.items()))
            wanted = not future.done() and (waiting.deadline is None or waiting.deadline > now)
            if wanted and batch and tokens + len(waiting.tokenized.ids) > self._max_tokens:
                break
            del self._waiting[future]
            if wanted:
                batch[future] = waiting
                tokens += len(waiting.tokenized.ids)
        return batch

    async def _encode_batch(self, batch: _Batch) -> None:
        began = perf_counter()
        texts = list(batch.values())
        outcomes: Sequence[Encoding | Exception]
        try:
            outcomes = await asyncio.get_running_loop().run_in_executor(self._worker, _each, self._encode, texts)
        except Exception as error:  # noqa: BLE001 - whatever the model raises, its callers must hear of it, or they hang
            outcomes = [_failed(error) for _ in texts]
        took = perf_counter() - began
        self._rate.left(len(batch), seconds=took)
        for (future, waiting), outcome in zip(batch.items(), outcomes, strict=True):
            if future.done():
                continue
            if isinstance(outcome, Exception):
                future.set_exception(outcome)
            else:
                future.set_result(Encoded(outcome, began - waiting.since, took, len(batch)))


def _each(encode: Encode, texts: Sequence[_Waiting]) -> list[Encoding | Exception]:
    """One outcome per text: the texts an `EncodingError` names are refused, the others are encoded without them."""
    outcomes: dict[int, Encoding | Exception] = {}
    left = list(range(len(texts)))
    while left:
        try:
            encodings = encode([texts[position].tokenized for position in left])
        except EncodingError as error:
            if not error.positions:
                raise
            refused = {left[position] for position in error.positions}
            outcomes |= {position: _refusal(texts[position], error) for position in refused}
            left = [position for position in left if position not in refused]
        else:
            outcomes |= zip(left, encodings, strict=True)
            break
    return [outcomes[position] for position in range(len(texts))]


def _refusal(waiting: _Waiting, error: EncodingError) -> Exception:
    """Without a word it is the text's fault, without a finite vector the model's."""
    if not isinstance(error, NoWords):
        return _failed(error)
    return QueryRefused(waiting.text) if waiting.role == "query" else NoWords(error.reason, (0,))


def _failed(error: Exception) -> EncoderFailed:
    failure = EncoderFailed(f"the encoder failed: {type(error).__name__}")
    failure.__cause__ = error
    return failure
