from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from service.snippet import WIDTH, WORD, Run, fold, snippet

FILLER = "nothing to see here " * 40


def shown(runs: list[Run]) -> str:
    return "".join(run.text for run in runs)


def test_a_short_text_is_shown_whole_with_its_matches_marked() -> None:
    assert snippet("Compress\n  a file.", {"compress": 2.0}) == [Run("Compress", True), Run(" a file.", False)]


def test_a_long_text_is_shown_where_the_most_distinct_weight_lies() -> None:
    text = f"file file file {FILLER} open a zip archive {FILLER}"
    runs = snippet(text, {"file": 0.3, "zip": 1.0, "archive": 1.0})
    assert [run.text for run in runs if run.match] == ["zip", "archive"]
    assert shown(runs).startswith("…")
    assert shown(runs).endswith("…")


def test_a_text_without_a_match_is_shown_from_its_beginning() -> None:
    assert shown(snippet(FILLER, {"zip": 1.0})).startswith("nothing to see")


def test_accents_and_capitals_do_not_hide_a_match() -> None:
    assert snippet("Le CAFÉ noir", {"cafe": 1.0})[1] == Run("CAFÉ", True)


def test_an_empty_text_has_an_empty_snippet() -> None:
    assert snippet("", {"zip": 1.0}) == []


@given(st.text(), st.dictionaries(st.text(min_size=1), st.floats(0.1, 5)), st.integers(1, 60))
def test_a_snippet_is_made_of_stretches_of_the_text_in_their_order_and_not_longer_than_asked(
    text: str, weights: dict[str, float], width: int
) -> None:
    runs = snippet(text, weights, width=width)
    whole, at = " ".join(text.split()), 0
    for stretch in shown(runs).strip("…").split(" … "):
        at = whole.index(stretch, at) + len(stretch)
    assert len(shown(runs)) <= width + len("… … …")
    assert all(one.match != two.match for one, two in pairwise(runs))


TEXTS = st.lists(st.sampled_from([*"aAbBé1_-.'", " ", "ab", "ba"]), max_size=30).map("".join)


@given(text=TEXTS, words=st.sets(st.sampled_from("a b ab ba aba 1 e _".split())))
def test_the_words_that_weigh_something_are_marked_and_nothing_else(text: str, words: set[str]) -> None:
    marked = [run.text for run in snippet(text, dict.fromkeys(words, 1.0)) if run.match]
    assert marked == [word.group() for word in WORD.finditer(text) if fold(word.group()) in words]


def test_two_stretches_are_shown_where_they_say_more_than_one() -> None:
    text = f"Zip holds files. {FILLER}. The archive is read again. {FILLER}"
    runs = snippet(text, {"zip": 1.0, "archive": 1.0})
    assert [run.text for run in runs if run.match] == ["Zip", "archive"]
    assert " … The archive is read again." in shown(runs)
    together = f"{FILLER}. Zip: the archive of files. {FILLER}"
    assert " … " not in shown(snippet(together, {"zip": 1.0, "archive": 1.0}))
    hardly = f"Zip zip. {FILLER}. The archive. {FILLER}"
    assert " … " not in shown(snippet(hardly, {"zip": 1.0, "archive": 0.1}))


def test_a_snippet_begins_with_the_sentence_of_its_first_match() -> None:
    text = f"{FILLER}. It is the best archive there is. {FILLER}"
    assert shown(snippet(text, {"archive": 1.0})).startswith("…It is the best archive")


def test_a_snippet_at_the_end_of_a_text_is_as_long_as_any_other() -> None:
    text = f"{FILLER}. One more sentence stands here. Then comes the archive."
    assert shown(snippet(text, {"archive": 1.0})).endswith("One more sentence stands here. Then comes the archive.")


def test_the_default_width_is_a_few_lines() -> None:
    assert len(shown(snippet(FILLER * 3, {}))) <= WIDTH + 1
