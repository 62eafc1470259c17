"""Why a document was found, in words: the addends of the OT part, one per vocabulary entry that both sides hold.

The sum of all contributions is the OT inner product of the two stored vectors, so an explanation never tells a
different story than the score. A word either stands in the text or was added by the model, which is what the learned
vocabulary is for.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from model.vector import FusedVector

PIECE = "##"
"""How WordPiece marks an entry that continues a word."""


@dataclass(frozen=True, slots=True)
class Term:
    """One vocabulary entry that query and document share.

    Attributes:
        entry: As the vocabulary spells it; `##` begins a piece that continues a word.
        word: The word it stands for: whole where a text holds the piece, else the piece with a leading hyphen.
        query_weight: Its OT value in the query.
        document_weight: Its OT value in the document.
        contribution: Their product.
        in_query: The query holds it; else the model added it there.
        in_document: The document holds it; else the model added it there.
    """

    entry: str
    word: str
    query_weight: float
    document_weight: float
    contribution: float
    in_query: bool
    in_document: bool


def split_words(ids: Iterable[int], vocabulary: Sequence[str]) -> list[tuple[str, tuple[int, ...]]]:
    """The words of a text with the entries each is made of, in order.

    >>> split_words([1, 2, 0], ["a", "zip", "##file"])
    [('zipfile', (1, 2)), ('a', (0,))]
    """
    words: list[list[int]] = []
    for entry in ids:
        if words and vocabulary[entry].startswith(PIECE):
            words[-1].append(entry)
        else:
            words.append([entry])
    return [("".join(vocabulary[entry].removeprefix(PIECE) for entry in word), tuple(word)) for word in words]


def word_of_entry(words: Iterable[tuple[str, tuple[int, ...]]]) -> dict[int, str]:
    """The word that each entry of a text belongs to; the shortest where it belongs to several.

    >>> word_of_entry([("zipfile", (1, 2)), ("zip", (1,))])
    {1: 'zip', 2: 'zipfile'}
    """
    found: dict[int, str] = {}
    for word, entries in sorted(words, key=lambda each: len(each[1])):
        for entry in entries:
            found.setdefault(entry, word)
    return found


def explain(
    query: FusedVector,
    document: FusedVector,
    *,
    query_words: Mapping[int, str],
    document_words: Mapping[int, str],
    vocabulary: Sequence[str],
) -> list[Term]:
    """The entries both vectors hold, the largest contribution first.

    Args:
        query: The encoded query.
        document: The stored vectors of a document.
        query_words: Word by entry, as `word_of_entry` gives it for the query's text.
        document_words: The same for the document's passage.
        vocabulary: WordPiece strings by id.
    """
    shared, mine, theirs = np.intersect1d(
        query.ot_indices, document.ot_indices, assume_unique=True, return_indices=True
    )
    terms = []
    for entry, left, right in zip(
        shared.tolist(), query.ot_values[mine].tolist(), document.ot_values[theirs].tolist(), strict=True
    ):
        word = document_words.get(entry) or query_words.get(entry) or _spell(vocabulary[entry])
        held = (entry in query_words, entry in document_words)
        terms.append(Term(vocabulary[entry], word, left, right, left * right, *held))
    return sorted(terms, key=lambda term: (-term.contribution, term.entry))


def _spell(entry: str) -> str:
    return f"-{entry.removeprefix(PIECE)}" if entry.startswith(PIECE) else entry
