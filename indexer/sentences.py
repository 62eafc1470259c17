"""Where a text may be cut: at paragraphs, at sentences, at words.

A rule of a page and no library: a border only says where a passage had better end, so one that is missed or false costs
a little context and no text. It knows white space, closing marks and the case of the next letter, which serves every
script with white space between words, and the full stops of Chinese and Japanese; of abbreviations, English ones.
"""

import re
from typing import NamedTuple

STOPS, CLOSING, OPENING = ".!?…", "\"'”’»)]}", "\"'“‘«([{"
GAP = re.compile(r"(?<=\S)\s+(?=\S)")
BREAK = re.compile(rf"(?<=[{re.escape(STOPS + CLOSING)}])\s+(?=\S)|(?<=\S)[^\S\n]*\n\s*(?=\S)")
"""A gap that may stand between sentences."""
WIDE_STOP = re.compile(r"[。！？｡]+[」』”’）]*")
"""Ends a sentence with no white space after it."""

ABBREVIATIONS = frozenset(
    """
    al approx ca cf col dept dr ed eds eq eqs etc fig figs gen gov inc jr ltd mr mrs ms mt pp prof ref refs rep
    sec sen sr st vol vs
    """.split()  # noqa: SIM905  words are easier to read as a text than as a list
)
LOOKBACK = 40
"""Characters before a gap that are looked at, so that a text without white space takes no longer than another."""


class Borders(NamedTuple):
    """Characters where something begins, ascending and without the first; each also begins everything smaller."""

    paragraphs: list[int]
    sentences: list[int]
    words: list[int]


def borders(text: str) -> Borders:
    """Where paragraphs, sentences and words begin. A line begins a sentence unless it begins with a small letter.

    >>> text = "Dr. Gull nests (on cliffs). She eats fish"
    >>> [text[start:] for start in borders(text).sentences]
    ['She eats fish']
    """
    breaks = [(gap.start(), gap.end(), gap.group().count("\n")) for gap in BREAK.finditer(text)]
    paragraphs = [start for _, start, lines in breaks if lines > 1]
    sentences = {stop.end() for stop in WIDE_STOP.finditer(text) if stop.end() < len(text)}.union(
        paragraphs, (start for gap, start, lines in breaks if _begins_sentence(text, gap, start, new_line=lines > 0))
    )
    return Borders(paragraphs, sorted(sentences), sorted(sentences.union(gap.end() for gap in GAP.finditer(text))))


def _begins_sentence(text: str, gap: int, start: int, *, new_line: bool) -> bool:
    if text[start].islower():
        return False
    before = text[max(0, gap - LOOKBACK) : gap].rstrip(CLOSING)
    return new_line or (before.endswith(tuple(STOPS)) and not _abbreviated(before.split()[-1]))


def _abbreviated(word: str) -> bool:
    """Whether the full stop belongs to the word: a known one, or single letters as in `J.`, `e.g.` and `U.S.`.

    >>> [word for word in ["Fig.", "(e.g.", "U.S.", "al.", "fish.", "so?", "..."] if _abbreviated(word)]
    ['Fig.', '(e.g.', 'U.S.', 'al.']
    """
    if not word.endswith("."):
        return False
    parts = word.strip(OPENING).removesuffix(".").split(".")
    return all(len(part) == 1 and part.isalpha() for part in parts) or parts[-1].lower() in ABBREVIATIONS
