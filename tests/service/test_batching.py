"""The encoder here is a stand-in that a test can hold: each test decides when the model answers, so nothing sleeps."""

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.encoder import Encoding, EncodingError, NoWords, Tokenized
from model.vector import FusedVector
from service.batching import SHORT, BatcherClosed, Encode, Encoded, EncoderFailed, MicroBatcher, Role, Tokenize
from service.queueing import QueueFull
from service.searcher import QueryRefused

pytestmark = pytest.mark.anyio


def tokenized(text: str, k: int = 1) -> Tokenized:
    """A token is a character."""
    return Tokenized([ord(character) for character in text], len(text), False, k)


def text_of(tokens: Tokenized) -> str:
    return "".join(map(chr, tokens.ids))


def encoding_of(tokens: Tokenized) -> Encoding:
    vector = FusedVector(np.array([tokens.tokens], np.float32), np.array([1]), np.array([1], np.float32))
    return Encoding(vector, tokens.tokens, False)


class HeldEncoder:
    """Encodes when it is let go, and remembers each batch it was given."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.ks: list[list[int]] = []
        self.entered = threading.Semaphore(0)
        self.gate = threading.Event()

    def __call__(self, tokens: Sequence[Tokenized]) -> list[Encoding]:
        texts = [text_of(each) for each in tokens]
        self.batches.append(texts)
        self.ks.append([each.k for each in tokens])
        self.entered.release()
        assert self.gate.wait(10)
        if "break" in texts:
            raise RuntimeError("out of memory")
        if refused := tuple(position for position, text in enumerate(texts) if not text):
            raise NoWords("empty text", refused)
        return [encoding_of(each) for each in tokens]

    async def until_entered(self) -> None:
        assert await asyncio.to_thread(self.entered.acquire, timeout=10)


async def ask(batcher: MicroBatcher, *texts: str) -> list[asyncio.Task[int]]:
    """Ask for each text in a task of its own; they are all waiting when this returns."""

    async def tokens(text: str) -> int:
        return (await batcher.encode(text)).encoding.tokens

    tasks = [asyncio.create_task(tokens(text)) for text in texts]
    await asyncio.sleep(0)
    return tasks


def batcher_of(encode: Encode, batch: int = 8, queue: int = 64, tokens: int = 1_000_000) -> MicroBatcher:
    tokenize: dict[Role, Tokenize] = {"query": tokenized, "document": lambda text: tokenized(text, k=2)}
    return MicroBatcher(tokenize, encode, max_batch=batch, max_tokens=tokens, max_queue=queue)


async def test_while_one_batch_is_encoded_the_next_gathers() -> None:
    encoder = HeldEncoder()
    async with batcher_of(encoder) as batcher:
        first = await ask(batcher, "a")
        await encoder.until_entered()
        others = await ask(batcher, "bb", "ccc", "dddd")
        encoder.gate.set()
        assert await asyncio.gather(*first, *others) == [1, 2, 3, 4]
    assert encoder.batches == [["a"], ["bb", "ccc", "dddd"]]


async def test_it_is_busy_from_the_first_text_until_the_last_is_encoded() -> None:
    encoder = HeldEncoder()
    async with batcher_of(encoder) as batcher:
        assert not batcher.busy
        tasks = await ask(batcher, "a")
        assert batcher.busy
        await encoder.until_entered()
        assert batcher.depth == 0
        assert batcher.busy
        encoder.gate.set()
        await asyncio.gather(*tasks)
    assert not batcher.busy


async def test_a_batch_has_at_most_its_size() -> None:
    encoder = HeldEncoder()
    async with batcher_of(encoder, batch=2) as batcher:
        tasks = await ask(batcher, "a", "bb", "ccc", "dddd", "eeeee")
        encoder.gate.set()
        await asyncio.gather(*tasks)
    assert max(map(len, encoder.batches)) == 2


async def test_a_batch_has_at_most_its_tokens_and_a_longer_text_goes_alone() -> None:
    encoder = HeldEncoder()
    async with batcher_of(encoder, tokens=10) as batcher:
        first = await ask(batcher, "x")
        await encoder.until_entered()
        tasks = await ask(batcher, "a" * 4, "b" * 6, "c" * 11, "d" * 5, "e" * 6)
        encoder.gate.set()
        assert await asyncio.gather(*first, *tasks) == [1, 4, 6, 11, 5, 6]
    assert [list(map(len, batch)) for batch in encoder.batches] == [[1], [4, 6], [11], [5], [6]]


async def test_queries_and_documents_stand_in_one_queue_and_are_tokenized_as_what_they_are() -> None:
    encoder = HeldEncoder()
    async with batcher_of(encoder, batch=2) as batcher:
        first = await ask(batcher, "x")
        await encoder.until_entered()
        roles: list[Role] = ["document", "document", "document", "query"]
        tasks = [asyncio.create_task(batcher.encode(f"{n}", role=role)) for n, role in enumerate(roles)]
        await asyncio.sleep(0)
        encoder.gate.set()
        await asyncio.gather(*first, *tasks)
    assert encoder.batches == [["x"], ["0", "1"], ["2", "3"]]
    assert encoder.ks == [[1], [2, 2], [2, 1]]


async def test_a_long_text_is_tokenized_in_a_thread_and_counts_as_waiting() -> None:
    encoder, tokenizing, go_on = HeldEncoder(), threading.Event(), threading.Event()
    threads = []

    def held(text: str) -> Tokenized:
        threads.append(threading.current_thread())
        if len(text) > SHORT:
            tokenizing.set()
            assert go_on.wait(10)
        return tokenized(text)

    encoder.gate.set()
    async with MicroBatcher(
        {"query": held, "document": held}, encoder, max_batch=8, max_tokens=10_000, max_queue=1
    ) as batcher:
        (long,) = await ask(batcher, "y" * (SHORT + 1))
        assert await asyncio.to_thread(tokenizing.wait, 10)
        assert batcher.depth == 1
        with pytest.raises(QueueFull):
            await batcher.encode("a")
        go_on.set()
        assert await long == SHORT + 1
        assert (await batcher.encode("y" * SHORT)).encoding.tokens == SHORT
    assert [thread is threading.main_thread() for thread in threads] == [False, True]


async def test_closing_answers_one_whose_text_is_still_being_tokenized() -> None:
    encoder, tokenizing, go_on = HeldEncoder(), threading.Event(), threading.Event()

    def held(text: str) -> Tokenized:
        tokenizing.set()
        assert go_on.wait(10)
        return tokenized(text)

    batcher = MicroBatcher({"query": held, "document": held}, encoder, max_batch=8, max_tokens=10_000, max_queue=8)
    (long,) = await ask(batcher, "y" * (SHORT + 1))
    assert await asyncio.to_thread(tokenizing.wait, 10)
    await batcher.close()
    go_on.set()
    with pytest.raises(BatcherClosed):
        await long
    assert encoder.batches == []


async def test_everybody_gets_the_vector_of_the_own_text_while_others_cancel() -> None:
    encoder = HeldEncoder()
    async with batcher_of(encoder, batch=7, queue=1_000) as batcher:
        first = await ask(batcher, "x")
        await encoder.until_entered()
        tasks = await ask(batcher, *("y" * length for length in range(1, 200)))
        for task in tasks[::3]:
            task.cancel()
        encoder.gate.set()
        answers = await asyncio.gather(*first, *tasks, return_exceptions=True)
    expected = [1, *range(1, 200)]
    for position, (answer, length) in enumerate(zip(answers, expected, strict=True)):
        if position and (position - 1) % 3 == 0:
            assert isinstance(answer, asyncio.CancelledError)
        else:
            assert answer == length


async def test_a_full_queue_refuses_at_once_and_recovers() -> None:
    encoder = HeldEncoder()
    async with batcher_of(encoder, queue=2) as batcher:
        first = await ask(batcher, "a")
        await encoder.until_entered()
        waiting = await ask(batcher, "bb", "ccc")
        with pytest.raises(QueueFull, match="2 texts are waiting for the encoder; ask again in 1 s") as full:
            await batcher.encode("dddd")
        assert full.value.retry_after_s == 1
        encoder.gate.set()
        assert await asyncio.gather(*first, *waiting) == [1, 2, 3]
        assert (await batcher.encode("dddd")).encoding.tokens == 4


async def test_who_would_wait_too_long_is_refused_before_the_queue_is_full() -> None:
    encoder = HeldEncoder()
    tokenize: dict[Role, Tokenize] = {"query": tokenized, "document": tokenized}
    async with MicroBatcher(
        tokenize, encoder, max_batch=8, max_tokens=10_000, max_queue=100, max_wait_s=1e-9
    ) as batcher:
        first = await ask(batcher, "a")
        await encoder.until_entered()
        waits = await ask(batcher, "bb")  # nothing is known yet of the time a text takes
        encoder.gate.set()
        assert await asyncio.gather(*first, *waits) == [1, 2]
        encoder.gate.clear()
        busy = await ask(batcher, "ccc")
        await encoder.until_entered()
        await encoder.until_entered()
        waits = await ask(batcher, "dddd")  # nobody waits before it
        with pytest.raises(QueueFull, match="1 texts are waiting"):
            await batcher.encode("eeeee")
        encoder.gate.set()
        assert await asyncio.gather(*busy, *waits) == [3, 4]


async def test_a_cancelled_caller_leaves_the_queue_and_never_reaches_the_model() -> None:
    encoder = HeldEncoder()
    async with batcher_of(encoder, queue=1) as batcher:
        first = await ask(batcher, "a")
        await encoder.until_entered()
        (gone,) = await ask(batcher, "bb")
        gone.cancel()
        await asyncio.wait([gone])
        assert batcher.depth == 0
        stayed = await ask(batcher, "ccc")
        encoder.gate.set()
        assert await asyncio.gather(*first, *stayed) == [1, 3]
    assert encoder.batches == [["a"], ["ccc"]]


async def test_a_late_caller_gets_a_timeout_and_never_reaches_the_model() -> None:
    encoder = HeldEncoder()
    async with batcher_of(encoder) as batcher:
        first = await ask(batcher, "a")
        await encoder.until_entered()
        with pytest.raises(TimeoutError):
            await batcher.encode("bb", deadline=asyncio.get_running_loop().time())
        encoder.gate.set()
        await asyncio.gather(*first)
    assert encoder.batches == [["a"]]


async def test_an_encoder_error_reaches_exactly_its_batch() -> None:
    encoder = HeldEncoder()
    async with batcher_of(encoder) as batcher:
        first = await ask(batcher, "a")
        await encoder.until_entered()
        broken = await ask(batcher, "break", "bb")
        encoder.gate.set()
        assert await asyncio.gather(*first) == [1]
        for error in await asyncio.gather(*broken, return_exceptions=True):
            assert isinstance(error, EncoderFailed)
            assert isinstance(error.__cause__, RuntimeError)
        assert (await batcher.encode("ccc")).encoding.tokens == 3


async def test_a_text_without_a_vector_is_refused_and_its_neighbours_are_encoded() -> None:
    encoder = HeldEncoder()
    encoder.gate.set()
    async with batcher_of(encoder) as batcher:
        tasks = await ask(batcher, "a", "", "ccc", "")
        answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert [answers[0], answers[2]] == [1, 3]
    assert isinstance(answers[1], QueryRefused)
    assert isinstance(answers[3], QueryRefused)


async def test_a_document_without_a_vector_is_not_called_a_query() -> None:
    encoder = HeldEncoder()
    encoder.gate.set()
    async with batcher_of(encoder) as batcher:
        with pytest.raises(NoWords, match="empty text"):
            await batcher.encode("", role="document")


async def test_a_vector_that_is_not_finite_is_the_models_fault_and_not_the_texts() -> None:
    def encode(texts: Sequence[Tokenized]) -> list[Encoding]:
        if len(texts) > 1:
            raise EncodingError("NaN", (0,))
        return [encoding_of(each) for each in texts]

    async with batcher_of(encode) as batcher:
        broken, whole = await ask(batcher, "a", "bb")
        assert await whole == 2
        with pytest.raises(EncoderFailed):
            await broken


async def test_an_encoder_that_returns_too_little_fails_the_batch_instead_of_mixing_it_up() -> None:
    async with batcher_of(lambda tokens: [encoding_of(each) for each in tokens[1:]]) as batcher:
        tasks = await ask(batcher, "a", "bb")
        answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(answer, EncoderFailed) for answer in answers)


async def test_closing_answers_those_who_wait_and_refuses_new_ones() -> None:
    encoder = HeldEncoder()
    batcher = batcher_of(encoder)
    first = await ask(batcher, "a")
    await encoder.until_entered()
    waiting = await ask(batcher, "bb", "ccc")
    closing = asyncio.create_task(batcher.close())
    await asyncio.sleep(0)
    with pytest.raises(BatcherClosed):
        await batcher.encode("dddd")
    encoder.gate.set()
    assert await asyncio.gather(*first, *waiting) == [1, 2, 3]
    await closing


async def test_an_answer_says_how_long_it_waited_and_with_how_many() -> None:
    encoder = HeldEncoder()
    async with batcher_of(encoder) as batcher:
        first = await ask(batcher, "a")
        await encoder.until_entered()
        together = [asyncio.create_task(batcher.encode(text)) for text in ("bb", "ccc")]
        await asyncio.sleep(0)
        encoder.gate.set()
        await asyncio.gather(*first)
        for answer in await asyncio.gather(*together):
            assert answer.batch == 2
            assert answer.queued > 0
            assert answer.encoded > 0


ACTIONS = st.one_of(
    st.tuples(st.just("ask"), st.text("abc!", min_size=1, max_size=6)),
    st.tuples(st.just("late"), st.text("abc", min_size=1, max_size=6)),
    st.tuples(st.just("cancel"), st.integers(0, 20)),
    st.tuples(st.just("turn"), st.integers(1, 3)),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(ACTIONS, max_size=30), st.integers(1, 4), st.integers(1, 12))
def test_whatever_comes_in_between_everybody_hears_of_the_own_text_and_of_nothing_else(
    actions: list[tuple[str, Any]], batch: int, tokens: int
) -> None:
    """A text with a "!" breaks the batch that it is in; who shares it hears of that, and nobody else."""
    batches: list[list[str]] = []

    def encode(given: Sequence[Tokenized]) -> list[Encoding]:
        texts = [text_of(each) for each in given]
        batches.append(texts)
        if any("!" in text for text in texts):
            raise RuntimeError("broken")
        return [encoding_of(each) for each in given]

    async def play() -> list[tuple[str, asyncio.Task[Encoded]]]:
        asked: list[tuple[str, asyncio.Task[Encoded]]] = []
        async with batcher_of(encode, batch=batch, queue=1_000, tokens=tokens) as batcher:
            for action, value in actions:
                if action == "ask" or action == "late":
                    text = f"{len(asked)}{value}"
                    deadline = None if action == "ask" else asyncio.get_running_loop().time()
                    asked.append((text, asyncio.create_task(batcher.encode(text, deadline=deadline))))
                elif action == "cancel" and value < len(asked):
                    asked[value][1].cancel()
                elif action == "turn":
                    for _ in range(value):
                        await asyncio.sleep(0)
        await asyncio.wait([task for _, task in asked] or [asyncio.create_task(asyncio.sleep(0))])
        return asked

    for text, task in asyncio.run(play()):
        own = [each for each in batches if text in each]
        assert len(own) <= 1
        if task.cancelled():
            continue
        error = task.exception()
        if error is None:
            assert task.result().encoding.tokens == len(text)
            assert own
        elif isinstance(error, EncoderFailed):
            assert any("!" in each for each in own[0])
        else:
            assert isinstance(error, TimeoutError | BatcherClosed)
            assert not own
    assert all(len(each) <= batch for each in batches)
    assert all(len(each) == 1 or sum(map(len, each)) <= tokens for each in batches)
