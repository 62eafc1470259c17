"""Forms of one word meet in a base form; other words do not."""

import pytest

from service.english import FUNCTION_WORDS, base_forms


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("engine", "engines"),
        ("library", "libraries"),
        ("box", "boxes"),
        ("plane", "planes"),
        ("stop", "stopped"),
        ("run", "running"),
        ("produce", "producing"),
        ("produced", "produces"),
        ("carry", "carried"),
        ("remembers", "remembered"),
    ],
)
def test_forms_of_one_word_share_a_base(one: str, other: str) -> None:
    assert base_forms(one) & base_forms(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [("plan", "planes"), ("car", "care"), ("bus", "bu"), ("b", "bed"), ("th", "thing"), ("file", "fill")],
)
def test_other_words_do_not(one: str, other: str) -> None:
    assert not base_forms(one) & base_forms(other)


def test_letters_that_name_something_are_no_function_words() -> None:
    assert not FUNCTION_WORDS & {"c", "r", "b", "x", "first", "not-a-word"}
