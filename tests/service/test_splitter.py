"""Words found piece by piece are those of the whole text."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.artifact import BUNDLED, Artifact
from model.encoder import Encoder
from service.explain import forms, split_words
from service.splitter import Splitter

ALPHABET = st.sampled_from([*"aAbzZ019 \t\n.,-_'\"[](){}<>/\\|@#$%^&*+=~`!?:;", "é", "ß", "中", "\x00", "\u200b"])
TEXTS = st.one_of(
    st.lists(ALPHABET, max_size=60).map("".join),
    st.lists(st.sampled_from("the zipfile module's [MASK] [x] Unhappiness e-mail C++ naïve 3.14".split())).map(
        " ".join
    ),
    st.text(max_size=40),
)


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(Artifact.open(BUNDLED), threads=1)


@pytest.fixture(scope="module")
def splitter(encoder: Encoder) -> Splitter:
    return Splitter(encoder)


@settings(deadline=None)
@given(text=TEXTS)
def test_piece_by_piece_is_as_a_whole(splitter: Splitter, encoder: Encoder, text: str) -> None:
    whole = split_words(encoder.vocabulary[entry] for entry in encoder.token_ids(text))
    assert splitter.words(text) == list(dict.fromkeys(whole))


@settings(deadline=None)
@given(text=TEXTS, wanted=st.frozensets(st.sampled_from("the zip file module happy ##ness unhappiness a mail".split())))
def test_the_words_that_are_wanted_are_those_of_all(splitter: Splitter, text: str, wanted: frozenset[str]) -> None:
    expected = [word for word in splitter.words(text) if wanted & forms(word)]
    assert splitter.words_of(text, wanted) == expected
