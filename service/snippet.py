"""The few lines of a document that show best why it was found.

Usually they are one stretch of it; two of half the length where those show clearly more of the words that matter.

A snippet is a list of runs, each either a match or not, instead of markup or offsets: a client needs neither an HTML
parser nor an opinion on how Python counts characters.
"""

import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

WIDTH = 240
"""Characters of a snippet, about three lines of the page."""

LEAD = 60
"""Characters shown at most before the first match: from where its sentence begins, if that is not further away."""

GAIN = 1.2
"""How much more two stretches must show than one, which is easier to read."""

READ = 10_000
"""Characters of a text that are looked at: a little more than the longest passage a model reads."""

CUT = "…"
WORD = re.compile(r"[^\W_]+")
SENTENCE_END = re.compile(r"[.!?][\"')\]]*\s+")


class Run(NamedTuple):
    """A stretch of a snippet."""

    text: str
    match: bool


class _Word(NamedTuple):
    begin: int
    end: int
    folded: str


class _Stretch(NamedTuple):
    """Characters of the text, and the words that they show."""

    begin: int
    end: int
    shows: frozenset[str]


def snippet(text: str, weights: Mapping[str, float], *, width: int = WIDTH) -> list[Run]:
    """The stretch of `text` whose distinct words weigh most, or the two, cut into runs.

    Args:
        text: What the document says; white space is collapsed.
        weights: Weight by word, lower-cased and without accents.
        width: Characters to show, not counting the ellipses.

    >>> [run.text for run in snippet("Compress a file with zlib.", {"file": 2.0, "zlib": 1.0}, width=20)]
    ['…a ', 'file', ' with ', 'zlib', '.']
    """
    text = " ".join(text[:READ].split())
    matches = _matches(text, weights)
    if len(text) <= width or not matches:
        stretches = [_Stretch(0, _end(text, 0, width), frozenset())]
    else:
        stretches = _Finder(text, matches, weights).best(width)
    return _joined(_shown(text, stretches, matches))


def fold(word: str) -> str:
    """Lower-case and without accents, as an uncased tokenizer reads it.

    >>> fold("Café")
    'cafe'
    """
    if word.isascii():
        return word.lower()
    decomposed = unicodedata.normalize("NFD", word.lower())
    return "".join(letter for letter in decomposed if unicodedata.category(letter) != "Mn")


def _matches(text: str, weights: Collection[str]) -> list[_Word]:
    """The words of a text that weigh something, folded."""
    if not text.isascii():
        words = ((found, fold(found.group())) for found in WORD.finditer(text))
        return [_Word(*found.span(), folded) for found, folded in words if folded in weights]
    text = text.lower()  # each letter stays where it is
    return sorted(match for word in weights if word.isalnum() for match in _occurrences(text, word))


def _occurrences(text: str, word: str) -> Iterator[_Word]:
    """Where a plain text has a word, not as a part of another: sooner than all its words are looked at."""
    end = 0
    while (begin := text.find(word, end)) >= 0:
        end = begin + len(word)
        if not text[begin - 1 : begin].isalnum() and not text[end : end + 1].isalnum():
            yield _Word(begin, end, word)


@dataclass(frozen=True, slots=True)
class _Finder:
    """Finds the stretches that show most."""

    text: str
    matches: Sequence[_Word]
    weights: Mapping[str, float]

    def best(self, width: int) -> list[_Stretch]:
        sentences = [0, *(found.end() for found in SENTENCE_END.finditer(self.text))]
        whole = self.heaviest(self.stretches(sentences, width))
        halves = self.stretches(sentences, width // 2)
        first = self.heaviest(halves)
        apart = [each for each in halves if each.begin >= first.end or each.end <= first.begin]
        if not apart:
            return [whole]
        second = self.heaviest(apart, besides=first.shows)
        if self.weight(first.shows | second.shows) < GAIN * self.weight(whole.shows):
            return [whole]
        return sorted([first, second])

    def stretches(self, sentences: Sequence[int], width: int) -> list[_Stretch]:
        """One for each match, from where its sentence begins; near the end of the text from an earlier sentence."""
        text, lead = self.text, min(LEAD, width // 4)
        latest = min(sentences[bisect_left(sentences, len(text) - width) :], default=len(text))
        ends, words = [match.end for match in self.matches], [match.folded for match in self.matches]
        stretches = []
        for number, first in enumerate(self.matches):
            begin = sentences[bisect_right(sentences, first.begin) - 1]
            if begin < first.begin - lead:
                begin = text.find(" ", first.begin - lead) + 1
            begin = min(begin, latest)
            end = _end(text, begin, width)
            stretches.append(_Stretch(begin, end, frozenset(words[number : bisect_right(ends, end)])))
        return stretches

    def heaviest(self, stretches: Sequence[_Stretch], besides: frozenset[str] = frozenset()) -> _Stretch:
        """The first of those whose words weigh most, those left out that are shown already."""
        return max(stretches, key=lambda each: self.weight(each.shows - besides))

    def weight(self, words: frozenset[str]) -> float:
        return sum(map(self.weights.__getitem__, words))


def _end(text: str, begin: int, width: int) -> int:
    if len(text) - begin <= width:
        return len(text)
    space = text.rfind(" ", begin, begin + width + 1)
    return space if space > begin else begin + width


def _shown(text: str, stretches: Sequence[_Stretch], matches: Sequence[_Word]) -> Iterator[Run]:
    for number, (begin, end, _) in enumerate(stretches):
        if number:
            yield Run(f" {CUT} ", False)
        elif begin:
            yield Run(CUT, False)
        yield from _runs(text, begin, end, matches)
    if stretches[-1].end < len(text):
        yield Run(CUT, False)


def _runs(text: str, begin: int, end: int, matches: Iterable[_Word]) -> Iterator[Run]:
    at = begin
    for match in matches:
        if begin <= match.begin and match.end <= end:
            yield Run(text[at : match.begin], False)
            yield Run(text[match.begin : match.end], True)
            at = match.end
    yield Run(text[at:end], False)


def _joined(runs: Iterable[Run]) -> list[Run]:
    joined: list[Run] = []
    for run in runs:
        if joined and joined[-1].match == run.match:
            joined[-1] = Run(joined[-1].text + run.text, run.match)
        elif run.text:
            joined.append(run)
    return joined
