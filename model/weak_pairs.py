"""Queries and passages out of text that nobody has labelled: titles, and sentences taken out of their passages.

A title stands for a query that the beginning of its text answers. A passage without one gives a sentence of its own,
taken out so that words alone do not find it (inverse cloze task, Lee et al. 2019, arXiv 1906.00300); one in ten stays,
as there, so that matching words stay worth something. Neither is what people type: such pairs tune a model that exists
to a new subject, and say whether it got better at them, no more.
"""

import heapq
import json
import random
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from model.atomic import replacing
from model.candidates import key
from model.corpus import Text, read_titled, sequences
from model.distributed import seed_of
from model.lines import SourceError
from model.records import Example, to_line

TEXTS, PAIRS, HELD_OUT, COUNTS = "texts.jsonl", "pairs.jsonl", "held-out.jsonl", "counts.json"

LEAST_TEXTS = 100
"""Fewer are too few to learn from and to judge on."""

LEAST_HELD_OUT, MOST_HELD_OUT, SHARE_HELD_OUT = 20, 300, 0.05
"""Texts that give the queries to judge on."""

MOST_PASSAGES = 2000
"""Passages that they are judged on: their own and others'."""

KEEP_SENTENCE = 0.1
"""How often a query stays in its passage."""

QUERY_WORDS = range(5, 31)

_LEAST_PASSAGE_WORDS = 8
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


class Counts(NamedTuple):
    """What `write` wrote: texts and pairs to train on, queries and passages to judge on."""

    texts: int
    pairs: int
    queries: int
    passages: int

    @classmethod
    def of(cls, folder: Path) -> "Counts":
        """As the folder says."""
        return cls(**json.loads((folder / COUNTS).read_text()))


class Split(NamedTuple):
    """Hashes of the texts that are held out, and of those whose passages they are judged against."""

    held_out: frozenset[int]
    rivals: frozenset[int]


def write(paths: Sequence[Path], folder: Path, *, max_words: int, seed: int) -> Counts:
    """Write text to train on, its pairs, and held-out records; the folder appears when it is whole.

    `texts.jsonl` and `pairs.jsonl` hold nothing of a held-out text. In `held-out.jsonl` each of these gives one query,
    and passages of other texts stand as negatives. The files are read twice, in constant memory.

    Args:
        paths: See `corpus.read_texts`.
        folder: For the files.
        max_words: Longest passage.
        seed: Of the choice of sentences.

    Raises:
        SourceError: A file cannot be read, there are too few texts, or they give no pairs.
    """
    split = divided(paths)
    held: dict[int, Example] = {}
    rivals: list[str] = []
    texts = pairs = 0
    with replacing(folder) as new, (new / TEXTS).open("wb") as for_text, (new / PAIRS).open("wb") as for_pairs:
        for text in read_titled(paths):
            hashed = key(text.whole)
            found = list(weak_pairs(text, max_words, random.Random(seed_of(seed, hashed))))
            if hashed in split.held_out:
                held |= dict.fromkeys([hashed], found[0]) if found else {}
                continue
            if hashed in split.rivals:
                rivals += [example.positives[0] for example in found[:1]]
            for_text.write(_line(json.dumps({"title": text.title, "text": text.body}, ensure_ascii=False)))
            for_pairs.writelines(_line(to_line(example)) for example in found)
            texts, pairs = texts + 1, pairs + len(found)
        if not held or not pairs:
            raise SourceError(f"{_names(paths)}: texts that give no queries; they need titles or several sentences")
        judged = [replace(example, negatives=tuple(rivals[n :: len(held)])) for n, example in enumerate(held.values())]
        (new / HELD_OUT).write_bytes(b"".join(_line(to_line(example)) for example in judged))
        counts = Counts(texts, pairs, len(held), len(held) + len(rivals))
        (new / COUNTS).write_text(json.dumps(counts._asdict()))
    return counts


def divided(paths: Sequence[Path]) -> Split:
    """Choose by hash, so that a text is on the same side wherever it stands and however often.

    Raises:
        SourceError: A file cannot be read, or there are too few texts.
    """
    count = 0

    def hashes() -> Iterator[int]:
        nonlocal count
        for text in read_titled(paths):
            count += 1
            yield key(text.whole)

    least = smallest(hashes(), MOST_PASSAGES)
    if count < LEAST_TEXTS or len(least) < LEAST_TEXTS:
        there = min(count, len(least))
        raise SourceError(
            f"{_names(paths)}: {there} different texts; at least {LEAST_TEXTS} are needed, better thousands"
        )
    held_out = min(max(LEAST_HELD_OUT, int(SHARE_HELD_OUT * count)), MOST_HELD_OUT)
    return Split(frozenset(least[:held_out]), frozenset(least[held_out:]))


def smallest(numbers: Iterable[int], count: int) -> list[int]:
    """The smallest different numbers, in order.

    >>> smallest([5, 1, 4, 1, 3], 3)
    [1, 3, 4]
    """
    heap: list[int] = []  # negative, so that the largest is on top
    for number in numbers:
        if len(heap) < count and -number not in heap:
            heapq.heappush(heap, -number)
        elif heap and number < -heap[0] and -number not in heap:
            heapq.heapreplace(heap, -number)
    return sorted(-number for number in heap)


def weak_pairs(text: Text, max_words: int, rng: random.Random) -> Iterator[Example]:
    """At most one pair for each passage of a text: its title for the first one, else a sentence.

    Args:
        text: Whole paragraphs of it make up passages; a longer one is cut. Words are what stands between spaces.
        max_words: Longest passage.
        rng: For the choice of sentences.
    """
    title, body = _apart(text)
    for number, words in enumerate(sequences((line.split() for line in body.split("\n")), max_words)):
        if title and not number:
            query, passage = title, " ".join(words)
        else:
            query, rest = cloze(" ".join(words), rng)
            passage = f"{title} {rest}" if title else rest  # as a passage of a titled document is indexed
        if query and len(passage.split()) >= _LEAST_PASSAGE_WORDS:
            yield Example(query, (passage,))


def cloze(passage: str, rng: random.Random) -> tuple[str, str]:
    """A sentence of a passage, and the passage, mostly without it; an empty one if none is of a query's length.

    >>> cloze("Gulls nest on cliffs. One of them learned to open a door. It sold bread.", random.Random(0))
    ('One of them learned to open a door.', 'Gulls nest on cliffs. It sold bread.')
    """
    sentences = _SENTENCE_END.split(passage)
    fit = [n for n, sentence in enumerate(sentences) if len(sentence.split()) in QUERY_WORDS]
    if not fit or len(sentences) == 1:
        return "", passage
    chosen = rng.choice(fit)
    if rng.random() < KEEP_SENTENCE:
        return sentences[chosen], passage
    return sentences[chosen], " ".join(sentences[:chosen] + sentences[chosen + 1 :])


def _apart(text: Text) -> tuple[str, str]:
    """Title and body, which often begins with the title."""
    title, body = " ".join(text.title.split()), text.body.strip()
    rest = body[len(title) :]
    repeated = body[: len(title)].casefold() == title.casefold() and not rest[:1].isalnum()
    return title, rest.lstrip(" \t\n.:-") if repeated else body


def _line(text: str) -> bytes:
    return text.encode() + b"\n"


def _names(paths: Sequence[Path]) -> str:
    return ", ".join(map(str, paths))
