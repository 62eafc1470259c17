import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.vector import FusedVector
from service.explain import explain, split_words, word_of_entry

VOCABULARY = ("a", "zip", "##file", "archive", "##s")


def vector(entries: dict[int, float]) -> FusedVector:
    return FusedVector(
        np.zeros(2, np.float32),
        np.array(sorted(entries), np.int64),
        np.array([entries[entry] for entry in sorted(entries)], np.float32),
    )


sparse = st.dictionaries(st.integers(0, 4), st.floats(0.01, 10), min_size=1).map(vector)


@given(sparse, sparse)
def test_contributions_add_up_to_the_ot_part(query: FusedVector, document: FusedVector) -> None:
    terms = explain(query, document, query_words={}, document_words={}, vocabulary=VOCABULARY)
    assert sum(term.contribution for term in terms) == pytest.approx(query.score(document).ot, rel=1e-5, abs=1e-6)
    assert sorted(terms, key=lambda term: -term.contribution) == terms


def test_a_term_says_which_side_holds_the_word_and_which_was_added() -> None:
    (term,) = explain(
        vector({3: 2.0}), vector({3: 1.5}), query_words={}, document_words={3: "archive"}, vocabulary=VOCABULARY
    )
    assert (term.word, term.contribution) == ("archive", 3.0)
    assert (term.in_query, term.in_document) == (False, True)


def test_a_piece_is_shown_as_the_word_that_holds_it() -> None:
    (term,) = explain(
        vector({2: 1.0}), vector({2: 1.0}), query_words={}, document_words={2: "zipfile"}, vocabulary=VOCABULARY
    )
    assert (term.entry, term.word) == ("##file", "zipfile")


def test_a_piece_that_neither_text_holds_is_shown_with_a_hyphen() -> None:
    (term,) = explain(vector({4: 1.0}), vector({4: 1.0}), query_words={}, document_words={}, vocabulary=VOCABULARY)
    assert (term.entry, term.word) == ("##s", "-s")


def test_an_entry_that_stands_alone_somewhere_is_its_own_word() -> None:
    words = split_words([1, 2, 0, 1], VOCABULARY)
    assert word_of_entry(words) == {0: "a", 1: "zip", 2: "zipfile"}
