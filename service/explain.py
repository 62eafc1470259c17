"""Why a document was found, in words: the addends of the OT part, one per vocabulary entry that both sides hold.

The sum of all contributions is the OT inner product of the two stored vectors, so an explanation never tells a
different story than the score. A word either stands in the text or was added by the model, which is what the learned
vocabulary is for.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from model.vector import FusedVector
from service.english import FUNCTION_WORDS, base_forms

PIECE = "##"
"""How WordPiece marks an entry that continues a word."""

CARRIER_SHARE = 0.1
"""A word carries the match when it contributes at least this share of what the best word does."""


class Term(NamedTuple):
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


class Word(NamedTuple):
    """A word of a text, uncased, and the vocabulary entries it is made of."""

    text: str
    entries: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why one document matches one query.

    Attributes:
        terms: The entries both vectors hold, the largest contribution first.
        carriers: The document's own words that carry the match, each with what its entries contribute; where none of
            them does, what an entry does that is another form of the word.
    """

    terms: list[Term]
    carriers: dict[str, float]


def split_words(entries: Iterable[str]) -> list[Word]:
    """The words of a tokenized text, their `##` pieces joined.

    >>> split_words(["zip", "##file", "a"])
    [Word(text='zipfile', entries=('zip', '##file')), Word(text='a', entries=('a',))]
    """
    words: list[list[str]] = []
    for entry in entries:
        if words and entry.startswith(PIECE):
            words[-1].append(entry)
        else:
            words.append([entry])
    return [Word(_whole(word), tuple(word)) for word in words]


def explain(
    query: FusedVector,
    document: FusedVector,
    *,
    query_words: Sequence[Word],
    document_words: Sequence[Word],
    vocabulary: Sequence[str],
) -> Explanation:
    """Split the OT part of a score into what each vocabulary entry adds.

    Args:
        query: The encoded query.
        document: The stored vectors of a document.
        query_words: The query's text.
        document_words: The document's passage.
        vocabulary: WordPiece strings by id.
    """
    mine, theirs = query.shared(document)
    entries = [vocabulary[index] for index in query.ot_indices[mine].tolist()]
    asked, words = word_by_entry(query_words), _concerned(document_words, entries)
    held = word_by_entry(words)
    values = zip(entries, query.ot_values[mine].tolist(), document.ot_values[theirs].tolist(), strict=True)
    terms = []
    for entry, left, right in values:
        word = held.get(entry) or asked.get(entry) or spell(entry)
        terms.append(Term(entry, word, left, right, left * right, entry in asked, entry in held))
    terms.sort(key=lambda term: (-term.contribution, term.entry))
    return Explanation(terms, _carriers(words, terms))


def word_by_entry(words: Iterable[Word]) -> dict[str, str]:
    """The word that each entry belongs to; the one with the fewest pieces where it belongs to several."""
    words = list(words)
    found = {word.entries[0]: word.text for word in words if len(word.entries) == 1}
    for word in sorted((word for word in words if len(word.entries) > 1), key=lambda word: len(word.entries)):
        for entry in word.entries:
            found.setdefault(entry, word.text)
    return found


def _whole(entries: Sequence[str]) -> str:
    if len(entries) == 1:
        return entries[0].removeprefix(PIECE)
    return "".join(entry.removeprefix(PIECE) for entry in entries)


def spell(entry: str) -> str:
    """An entry that stands in no text, as a word: a piece with a hyphen before it."""
    return f"-{entry.removeprefix(PIECE)}" if entry.startswith(PIECE) else entry


def _concerned(words: Iterable[Word], entries: Iterable[str]) -> list[Word]:
    """The words that hold one of the entries or are another form of one: few of a text; the others are left early."""
    wanted = frozenset(form for entry in entries for form in base_forms(entry))
    return [word for word in words if not wanted.isdisjoint(_keys(word))]


@lru_cache(2**15)
def _keys(word: Word) -> frozenset[str]:
    return base_forms(word.text).union(word.entries)


def _carriers(words: Iterable[Word], terms: Sequence[Term]) -> dict[str, float]:
    """Weight by word, without those that hardly matter, and without function words unless there are no others."""
    contributions = {term.entry: term.contribution for term in terms}
    by_form: dict[str, float] = {}
    for term in terms:
        for form in base_forms(term.entry):
            by_form.setdefault(form, term.contribution)  # terms come with the largest first
    weights: dict[str, float] = {}
    for text, pieces in words:
        weight = sum(contributions.get(entry, 0.0) for entry in set(pieces))
        weights.setdefault(text, weight or max(by_form.get(form, 0.0) for form in base_forms(text)))
    telling = {word: weight for word, weight in weights.items() if word not in FUNCTION_WORDS}
    shown = telling or weights
    least = CARRIER_SHARE * max(shown.values(), default=0.0)
    return {word: weight for word, weight in shown.items() if weight >= least}
