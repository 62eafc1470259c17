"""Stretches of a tokenized text that are short enough for a model and end where something ends."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from indexer.sentences import borders


class Rooms(NamedTuple):
    """Tokens of text that a passage may hold: a document's first one, and those after it."""

    first: int
    later: int


@dataclass(frozen=True, slots=True)
class TokenizedText:
    """A text in tokens, with those that begin something, by position and ascending.

    Attributes:
        starts: The character where each begins.
        length: Characters of the text.
        characters_begin: Tokens that share no character with the token before; a text can be cut at no other.
    """

    starts: list[int]
    length: int
    paragraphs: list[int]
    sentences: list[int]
    words: list[int]
    characters_begin: list[int]

    @classmethod
    def of(cls, text: str, spans: NDArray[np.int32]) -> Self:
        """Find what begins where.

        Args:
            text: Any text.
            spans: Where its tokens stand in it: (tokens, 2), begin and end in characters.
        """
        starts, ends = spans[:, 0], np.maximum.accumulate(spans[:, 1])
        whole = np.flatnonzero((starts[1:] >= ends[:-1]) & (starts[1:] > starts[:-1])) + 1
        paragraphs, sentences, words = (
            np.intersect1d(np.searchsorted(ends, at, side="right"), whole).tolist() for at in borders(text)
        )
        return cls(starts.tolist(), len(text), paragraphs, sentences, words, whole.tolist())

    def stretches(self, rooms: Rooms, overlap: int) -> Iterator[tuple[int, int]]:
        """First token and the one behind the last, of each passage."""
        start, done, room = 0, 0, rooms.first
        while True:
            end = self._end(start, done, room)
            yield start, end
            if end == len(self.starts):
                return
            start, done, room = self._next_start(start, end, rooms.later, overlap), end, rooms.later

    def characters(self, start: int, end: int) -> tuple[int, int]:
        """The same stretch in characters; white space belongs to what stands before it."""
        return (
            self.starts[start] if start else 0,
            self.starts[end] if end < len(self.starts) else self.length,
        )

    def _end(self, start: int, done: int, room: int) -> int:
        """Where a passage from `start` ends, behind `done`: at the last border that leaves it within its room."""
        last = start + room
        if last >= len(self.starts):
            return len(self.starts)
        half = start + room // 2  # a paragraph that ends before is too short to be a passage by itself
        for begin, least in (
            (self.paragraphs, max(half, done + 1)),
            (self.sentences, done + 1),
            (self.words, done + 1),
            (self.characters_begin, done + 1),
        ):
            found = bisect_right(begin, last)
            if found and begin[found - 1] >= least:
                return begin[found - 1]
        behind = bisect_right(self.characters_begin, done)  # one character of more tokens than there is room for
        return self.characters_begin[behind] if behind < len(self.characters_begin) else len(self.starts)

    def _next_start(self, start: int, end: int, room: int, overlap: int) -> int:
        """Where the passage after this one begins; the overlap is given up where the next sentence would not fit."""
        sentence = bisect_left(self.sentences, end)
        least = max(start + 1, end - overlap)
        begin = self.words
        if sentence < len(self.sentences) and self.sentences[sentence] == end:
            begin = self.sentences
            next_end = begin[sentence + 1] if sentence + 1 < len(begin) else len(self.starts)
            least = max(least, next_end - room)
        found = bisect_left(begin, least)
        return min(begin[found], end) if found < len(begin) else end
