"""Text for training, streamed: files of any size in, token sequences of bounded length out, in constant memory."""

import json
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from model.lines import SourceError, read_lines

T = TypeVar("T")


def read_texts(paths: Iterable[Path]) -> Iterator[str]:
    """Texts of JSON-lines files (`title`, `text`) or plain text files (one text a line), blank ones left out.

    Raises:
        SourceError: A file is missing or damaged, or a line is no text.
    """
    for path in paths:
        structured = ".json" in "".join(path.suffixes)
        for number, line in enumerate(read_lines(path), 1):
            text = _text(line, structured=structured, where=f"{path}:{number}")
            if text.strip():
                yield text


def _text(line: bytes, *, structured: bool, where: str) -> str:
    try:
        if not structured:
            return line.decode()
        record = json.loads(line)
        title, text = record.get("title") or "", record["text"]
        if not isinstance(text, str):
            raise TypeError(f"text is {text!r:.50}")
        return f"{title}\n{text}"
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SourceError(
            f'{where}: want UTF-8 text or JSON like {{"title": "...", "text": "..."}}: {error!r}'
        ) from error


def sequences(texts: Iterable[str], tokenize: Callable[[str], list[T]], max_tokens: int) -> Iterator[list[T]]:
    """Pack each text's paragraphs into runs of at most `max_tokens` tokens; a longer paragraph is cut.

    >>> list(sequences(["a b\\nc\\nd e f"], str.split, 3))
    [['a', 'b', 'c'], ['d', 'e', 'f']]
    """
    for text in texts:
        run: list[T] = []
        for paragraph in text.split("\n"):
            ids = tokenize(paragraph)
            if run and len(run) + len(ids) > max_tokens:
                yield run
                run = []
            run += ids
            while len(run) > max_tokens:
                yield run[:max_tokens]
                run = run[max_tokens:]
        if run:
            yield run


def shuffled(items: Iterable[T], *, window: int, seed: int) -> Iterator[T]:
    """The items in an order that is random within a window of `window` items and the same for the same seed."""
    rng, buffer = random.Random(seed), list[T]()
    for item in items:
        if len(buffer) < window:
            buffer.append(item)
            continue
        slot = rng.randrange(window)
        yield buffer[slot]
        buffer[slot] = item
    rng.shuffle(buffer)
    yield from buffer


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Full batches of `size`; a short rest is dropped.

    >>> list(batched("abcde", 2))
    [['a', 'b'], ['c', 'd']]
    """
    batch: list[T] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []


def forever(make: Callable[[int], Iterable[T]]) -> Iterator[T]:
    """Epoch after epoch of `make(epoch)`."""
    epoch = 0
    while True:
        empty = True
        for item in make(epoch):
            empty = False
            yield item
        if empty:
            raise SourceError("the training data gives not even one batch; use more text or a smaller batch")
        epoch += 1


@dataclass(frozen=True, slots=True)
class Example:
    """One training record: a query, passages that answer it, passages that do not."""

    query: str
    positives: tuple[str, ...]
    negatives: tuple[str, ...] = ()


def read_examples(path: Path) -> Iterator[Example]:
    """Records in FlagEmbedding's format: `{"query": str, "pos": [str, ...], "neg": [str, ...]}` a line.

    Raises:
        SourceError: The file is missing or damaged, or a line is not such a record.
    """
    for number, line in enumerate(read_lines(path), 1):
        try:
            record = json.loads(line)
            yield _example(record["query"], record["pos"], record.get("neg") or [])
        except (ValueError, KeyError, TypeError) as error:
            form = '{"query": "...", "pos": ["..."], "neg": ["..."]}'
            raise SourceError(f"{path}:{number}: want {form}: {error!r}") from error


def _example(query: object, positives: list[object], negatives: list[object]) -> Example:
    if not positives:
        raise ValueError("pos is empty")
    for texts in (positives, negatives):
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise TypeError("pos and neg are lists of strings")
    return Example(str(query), tuple(map(str, positives)), tuple(map(str, negatives)))
