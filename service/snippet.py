"""The few lines of a document that show best why it was found.

A snippet is a list of runs, each either a match or not, instead of markup or offsets: a client needs neither an HTML
parser nor an opinion on how Python counts characters.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import takewhile
from typing import NamedTuple

WIDTH = 240
"""Characters of a snippet, about three lines of the page."""

LEAD = 40
"""Characters shown before the first match, so that it does not stand without its sentence."""

READ = 10_000
"""Characters of a text that are looked at: a little more than the longest passage a model reads."""

WORD = re.compile(r"[^\W_]+")


class Run(NamedTuple):
    """A stretch of a snippet."""

    text: str
    match: bool


class _Word(NamedTuple):
    begin: int
    end: int
    folded: str


def snippet(text: str, weights: Mapping[str, float], *, width: int = WIDTH) -> list[Run]:
    """The stretch of `text` whose distinct words weigh most, cut into runs.

    Args:
        text: What the document says; white space is collapsed.
        weights: Weight by word, lower-cased and without accents.
        width: Characters to show, not counting the ellipses.

    >>> snippet("Compress a file with zlib.", {"file": 2.0, "zlib": 1.0}, width=20)
    [Run(text='Compress a ', match=False), Run(text='file', match=True), Run(text=' with…', match=False)]
    """
    text = " ".join(text[:READ].split())
    words = ((found, fold(found.group())) for found in WORD.finditer(text))
    matches = [_Word(found.start(), found.end(), folded) for found, folded in words if folded in weights]
    begin = _begin(text, matches, weights, width)
    end = _end(text, begin, width)
    runs = [Run("…", False)] if begin else []
    runs += _runs(text, begin, end, matches)
    if end < len(text):
        runs.append(Run("…", False))
    return _joined(runs)


def fold(word: str) -> str:
    """Lower-case and without accents, as an uncased tokenizer reads it.

    >>> fold("Café")
    'cafe'
    """
    if word.isascii():
        return word.lower()
    decomposed = unicodedata.normalize("NFD", word.lower())
    return "".join(letter for letter in decomposed if unicodedata.category(letter) != "Mn")


def _begin(text: str, matches: Sequence[_Word], weights: Mapping[str, float], width: int) -> int:
    """Where the heaviest window begins, moved back to let its first match have a lead."""

    def weight(first: int) -> float:
        last = matches[first].begin + width - LEAD
        inside = takewhile(lambda match: match.end <= last, matches[first:])
        return sum(weights[word] for word in {match.folded for match in inside})

    if len(text) <= width or not matches:
        return 0
    lead = matches[max(range(len(matches)), key=weight)].begin - LEAD
    return 0 if lead <= 0 else text.find(" ", lead) + 1


def _end(text: str, begin: int, width: int) -> int:
    if len(text) - begin <= width:
        return len(text)
    space = text.rfind(" ", begin, begin + width + 1)
    return space if space > begin else begin + width


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
