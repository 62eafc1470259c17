"""Why a document was found, in words: the addends of the OT part, one per vocabulary entry that both sides hold.

The sum of all contributions is the OT inner product of the two stored vectors, so an explanation never tells a
different story than the score. A word either stands in the text or was added by the model, which is what the learned
vocabulary is for.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, Self

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
class Question:
    """The query's side of explanations, worked out once for all the documents of an answer.

    Attributes:
        weights: By vocabulary id, the entry and its OT value.
        words: By entry, the word of the query's text that it belongs to.
        forms: The entries, and the words that they may be forms of. A word of a document that has none of them (see
            `forms`) has no part in an explanation.
    """

    weights: Mapping[int, tuple[str, float]]
    words: Mapping[str, str]
    forms: frozenset[str]

    @classmethod
    def of(cls, query: FusedVector, words: Iterable[Word], vocabulary: Sequence[str]) -> Self:
        """The question that an encoded query asks.

        Args:
            query: The encoded query.
            words: Its text.
            vocabulary: WordPiece strings by id.
        """
        values = zip(query.ot_indices.tolist(), query.ot_values.tolist(), strict=True)
        weights = {index: (vocabulary[index], value) for index, value in values}
        return cls(weights, word_by_entry(words), _forms([entry for entry, _ in weights.values()]))


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why one document matches one query."""

    _shared: list[tuple[str, float, float]]
    """Entries that both vectors hold with the weight in each, the largest product first."""

    _asked: Mapping[str, str]
    _words: list[Word]
    """Those of the document that hold one of the entries or are another form of one."""

    @property
    def terms(self) -> list[Term]:
        """The entries both vectors hold, the largest contribution first."""
        asked, held = self._asked, word_by_entry(self._words)
        return [
            Term(
                entry,
                held.get(entry) or asked.get(entry) or spell(entry),
                left,
                right,
                left * right,
                entry in asked,
                entry in held,
            )
            for entry, left, right in self._shared
        ]

    @property
    def carriers(self) -> dict[str, float]:
        """The document's own words that carry the match, each with what its entries contribute.

        Where none of them does, what an entry does that is another form of the word. Left out are words that hardly
        matter, and function words unless there are no others.
        """
        contributions = {entry: left * right for entry, left, right in self._shared}
        by_form: dict[str, float] = {}
        for entry, contribution in contributions.items():
            for form in base_forms(entry):
                by_form.setdefault(form, contribution)  # the largest come first
        weights: dict[str, float] = {}
        for text, pieces in self._words:
            weight = sum(contributions.get(entry, 0.0) for entry in set(pieces))
            weights.setdefault(text, weight or max(by_form.get(form, 0.0) for form in base_forms(text)))
        telling = {word: weight for word, weight in weights.items() if word not in FUNCTION_WORDS}
        shown = telling or weights
        least = CARRIER_SHARE * max(shown.values(), default=0.0)
        return {word: weight for word, weight in shown.items() if weight >= least}


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


def explain(question: Question, document: FusedVector, words: Iterable[Word]) -> Explanation:
    """Split the OT part of a score into what each vocabulary entry adds.

    Args:
        question: What is asked.
        document: The stored vectors of a document.
        words: Those of the document's passage; at least those that have one of the question's forms.
    """
    values = zip(document.ot_indices.tolist(), document.ot_values.tolist(), strict=True)
    asked = question.weights
    shared = [(*asked[index], value) for index, value in values if index in asked]
    shared.sort(key=lambda each: (-each[1] * each[2], each[0]))
    wanted = _forms([entry for entry, _, _ in shared])
    return Explanation(shared, question.words, [word for word in words if not wanted.isdisjoint(forms(word))])


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


@lru_cache(2**15)
def forms(word: Word) -> frozenset[str]:
    """The entries of a word, and the words that it may be a form of."""
    return base_forms(word.text).union(word.entries)


def _forms(entries: Iterable[str]) -> frozenset[str]:
    return frozenset[str]().union(*map(base_forms, entries))
