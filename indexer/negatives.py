"""Which of a ranking's passages may stand as negatives, and which of those are drawn.

Right answers that nobody judged must not be taught as wrong ones. So the first ranks are left out, and so is what
scores too close to the known positives. What is drawn of the rest depends on seed and texts alone.
"""

import hashlib
import heapq
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, Self

import numpy as np

from model.records import Example


class Candidate(NamedTuple):
    """A passage that a search found."""

    text: str
    score: float


@dataclass(frozen=True, slots=True)
class RankWindow:
    """Ranks that may give negatives, `first` and `last` included; 1 is the best hit.

    They are counted as the search found them, before a positive or anything else is left out.
    """

    first: int = 10
    last: int = 100

    @classmethod
    def parse(cls, text: str) -> Self:
        """From FIRST:LAST; a ValueError if it is not.

        >>> RankWindow.parse("10:100")
        RankWindow(first=10, last=100)
        """
        match = re.fullmatch(r"(\d{1,9}):(\d{1,9})", text)
        if match and 1 <= int(match[1]) <= int(match[2]):
            return cls(int(match[1]), int(match[2]))
        raise ValueError(f"{text!r} is not FIRST:LAST with 1 <= FIRST <= LAST, such as 10:100")


@dataclass(frozen=True, slots=True)
class Margin:
    """How far below a query's lowest positive a negative has to score: a share of that positive's score, and an amount.

    A share of 5 % is TopK-PercPos of NV-Retriever (Moreira et al., 2024). Scores are inner products here and may be
    below 0, so the share is of their size. Of n positives the lowest counts, since one that nobody judged may stand
    anywhere among them: n times in n + 1 it scores above the lowest, and only once above the best.
    """

    share: float = 0.0
    amount: float = 0.0

    @classmethod
    def parse(cls, text: str) -> Self:
        """From a share such as 5% or an amount such as 1.5; a ValueError if it is neither.

        >>> Margin.parse("5%"), Margin.parse("1.5")
        (Margin(share=0.05, amount=0.0), Margin(share=0.0, amount=1.5))
        """
        match = re.fullmatch(r"(\d+(?:\.\d+)?)(%?)", text)
        if not match:
            raise ValueError(f"{text!r} is neither a share such as 5%, nor an amount such as 1.5, nor none")
        number = float(match[1])
        return cls(share=number / 100) if match[2] else cls(amount=number)

    def limit(self, positives: Sequence[float]) -> float:
        """The score from which on a passage is too close.

        >>> Margin(share=0.25).limit([8.0, 4.0]), Margin(share=0.25).limit([-4.0]), Margin(amount=1.5).limit([4.0])
        (3.0, -5.0, 2.5)
        """
        lowest = min(positives)
        return lowest - self.share * abs(lowest) - self.amount


def eligible(candidates: Sequence[Candidate], taken: Collection[str], hidden: Collection[int]) -> Iterator[Candidate]:
    """The candidates that may be negatives: each text once, no blank one, none that is taken or hidden.

    Args:
        candidates: Best first.
        taken: Texts that answer the query or are negatives already, as `normal` gives them.
        hidden: Keys of other texts that are not to be used, see `text_key`.
    """
    seen = set[str]()
    for candidate in candidates:
        text = normal(candidate.text)
        if text and text not in seen and text_key(text) not in hidden and not any(same(text, t) for t in taken):
            seen.add(text)
            yield candidate


def draw(texts: Sequence[str], count: int, *, query: str, seed: int) -> list[str]:
    """`count` of the texts at random, or all, in random order.

    Each text has a lot, which follows from seed, query and text, and the lowest lots win. So the draw depends neither
    on the order of the texts nor on other records, and a text more or less changes one of the drawn at most.
    """
    key = hashlib.blake2b(f"{seed} {query}".encode(), digest_size=32).digest()

    def lot(text: str) -> bytes:
        return hashlib.blake2b(text.encode(), key=key, digest_size=8).digest()

    return heapq.nsmallest(count, texts, key=lot)


def normal(text: str) -> str:
    r"""The text with single spaces between its words: what is compared.

    >>> normal(" a\n b ")
    'a b'
    """
    return " ".join(text.split())


def same(one: str, two: str) -> bool:
    """Whether two normal texts are one passage: equal, or one of them begins with a title that the other lacks.

    >>> same("Gulls They nest.", "They nest."), same("They nest.", "They")
    (True, False)
    """
    longer, shorter = (one, two) if len(one) > len(two) else (two, one)
    return longer == shorter or longer.endswith(" " + shorter)


def text_key(text: str) -> int:
    """Eight bytes that stand for a normal text where there are many.

    >>> text_key("a") == text_key("a") != text_key("b")
    True
    """
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())


def known_positives(records: Sequence[Example]) -> Callable[[Example], set[str]]:
    """A function from a record to its positives and those of all records with the same query, as `normal` gives them.

    Of the records it remembers only which share a query, and reads those again: 24 bytes a record while it is made.
    """
    keys = np.fromiter((text_key(normal(example.query)) for example in records), np.uint64, len(records))
    rows = keys.argsort(kind="stable")
    keys = keys[rows]
    shared = np.zeros(len(keys), np.bool_)
    shared[1:] = keys[1:] == keys[:-1]
    shared[:-1] |= shared[1:].copy()
    keys, rows = keys[shared], rows[shared]

    @lru_cache(maxsize=256)  # a query that thousands of records share is not looked up thousands of times
    def elsewhere(query: str) -> frozenset[str]:
        start, stop = (int(keys.searchsorted(np.uint64(text_key(query)), side)) for side in ("left", "right"))
        return frozenset(normal(text) for row in rows[start:stop] for text in records[int(row)].positives)

    return lambda example: {normal(text) for text in example.positives} | elsewhere(normal(example.query))
