import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.vector import FusedVector
from service.explain import Explanation, Question, explain, split_words

VOCABULARY = ("a", "zip", "##file", "archive", "##s")


def vector(entries: dict[int, float]) -> FusedVector:
    return FusedVector(
        np.zeros(2, np.float32),
        np.array(sorted(entries), np.int64),
        np.array([entries[entry] for entry in sorted(entries)], np.float32),
    )


def explained(query: dict[int, float], document: dict[int, float], asked: str = "", held: str = "") -> Explanation:
    question = Question.of(vector(query), split_words(asked.split()), VOCABULARY)
    return explain(question, vector(document), split_words(held.split()))


sparse = st.dictionaries(st.integers(0, 4), st.floats(0.01, 10), min_size=1)


@given(sparse, sparse)
def test_contributions_add_up_to_the_ot_part(query: dict[int, float], document: dict[int, float]) -> None:
    terms = explained(query, document).terms
    expected = vector(query).score(vector(document)).ot
    assert sum(term.contribution for term in terms) == pytest.approx(expected, rel=1e-5, abs=1e-6)
    assert sorted(terms, key=lambda term: -term.contribution) == terms


def test_a_term_says_which_side_holds_the_word_and_which_the_model_added() -> None:
    (term,) = explained({3: 2.0}, {3: 1.5}, held="archive").terms
    assert (term.word, term.contribution) == ("archive", 3.0)
    assert (term.in_query, term.in_document) == (False, True)


def test_a_piece_is_shown_as_the_word_that_holds_it() -> None:
    (term,) = explained({2: 1.0}, {2: 1.0}, held="zip ##file").terms
    assert (term.entry, term.word) == ("##file", "zipfile")


def test_a_piece_that_neither_text_holds_is_shown_with_a_hyphen() -> None:
    (term,) = explained({4: 1.0}, {4: 1.0}).terms
    assert (term.entry, term.word) == ("##s", "-s")


def test_an_entry_that_stands_alone_somewhere_is_its_own_word() -> None:
    (term,) = explained({1: 1.0}, {1: 1.0}, held="zip ##file a zip").terms
    assert term.word == "zip"


def test_the_carriers_are_the_words_of_the_document_whole_and_without_those_that_hardly_matter() -> None:
    explanation = explained({0: 0.1, 1: 2.0, 2: 1.0, 3: 5.0}, {0: 1.0, 1: 1.0, 2: 1.0, 3: 1.0}, held="a zip ##file")
    assert explanation.carriers == {"zipfile": pytest.approx(3.0)}


def test_other_forms_of_a_word_that_matches_carry_it_too() -> None:
    held = "archives archived archivist zips"
    carriers = explained({3: 2.0}, {3: 1.0}, held=held).carriers
    assert carriers == {"archives": pytest.approx(2.0), "archived": pytest.approx(2.0)}


def test_function_words_carry_nothing_unless_there_are_no_others() -> None:
    query = {0: 2.0, 3: 1.0}
    assert explained(query, query, held="a archive").carriers == {"archive": pytest.approx(1.0)}
    assert explained(query, query, held="a zip").carriers == {"a": pytest.approx(4.0)}
