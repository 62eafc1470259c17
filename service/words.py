"""What a person reads of an explanation: whole words, and those that found no partner on the other side.

A vocabulary holds pieces, of which a word may have several; the addends of a score belong to pieces. Here the pieces of
one word are added up, so that the words add up to the same.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter

from model.vector import FusedVector
from service.explain import Term, Word, spell, word_by_entry

LONELY = 5
"""Words without a partner that are shown of each side."""


@dataclass(frozen=True, slots=True)
class SharedWord:
    """A word that query and document share, its pieces added up.

    Attributes:
        word: As `Term.word`.
        entries: The vocabulary entries it is made of here.
        query_weight: Their OT values in the query.
        document_weight: Their OT values in the document.
        contribution: What they add to the score.
        in_query: The query holds it, or a piece of it; else the model added it there.
        in_document: The same of the document.
    """

    word: str
    entries: list[str]
    query_weight: float
    document_weight: float
    contribution: float
    in_query: bool
    in_document: bool


@dataclass(frozen=True, slots=True)
class LonelyWord:
    """A word, or pieces of one, that only one side has.

    Attributes:
        word: As `Term.word`.
        weight: The OT values of those pieces.
        in_text: The text of that side holds it; else the model added it.
    """

    word: str
    weight: float
    in_text: bool


def shared_words(terms: Iterable[Term]) -> list[SharedWord]:
    """The words of some terms, the largest contribution first.

    >>> zip_, file = (Term(e, "zipfile", 1.0, w, w, True, True) for e, w in [("zip", 2.0), ("##file", 0.5)])
    >>> [(word.word, word.entries, word.contribution) for word in shared_words([zip_, file])]
    [('zipfile', ['zip', '##file'], 2.5)]
    """
    by_word = groupby(sorted(terms, key=attrgetter("word")), key=attrgetter("word"))
    found = [_added_up(word, list(pieces)) for word, pieces in by_word]
    return sorted(found, key=lambda word: (-word.contribution, word.word))


def lonely_words(
    vector: FusedVector, other: FusedVector, words: Sequence[Word], vocabulary: Sequence[str]
) -> list[LonelyWord]:
    """The strongest words of one side that the other side lacks: why a document was not found, or not higher.

    Args:
        vector: The side that has them.
        other: The side that lacks them.
        words: The text of the first.
        vocabulary: WordPiece strings by id.
    """
    held, theirs = word_by_entry(words), frozenset(other.ot_indices.tolist())
    weights: dict[str, float] = {}
    for index, value in zip(vector.ot_indices.tolist(), vector.ot_values.tolist(), strict=True):
        if index not in theirs:
            entry = vocabulary[index]
            word = held.get(entry) or spell(entry)
            weights[word] = weights.get(word, 0.0) + value
    strongest = sorted(weights.items(), key=lambda item: (-item[1], item[0]))[:LONELY]
    texts = set(held.values())
    return [LonelyWord(word, weight, word in texts) for word, weight in strongest]


def _added_up(word: str, pieces: Sequence[Term]) -> SharedWord:
    return SharedWord(
        word,
        [piece.entry for piece in pieces],
        sum(piece.query_weight for piece in pieces),
        sum(piece.document_weight for piece in pieces),
        sum(piece.contribution for piece in pieces),
        any(piece.in_query for piece in pieces),
        any(piece.in_document for piece in pieces),
    )
