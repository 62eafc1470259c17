from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from service.snippet import WIDTH, Run, snippet

FILLER = "nothing to see here " * 40


def shown(runs: list[Run]) -> str:
    return "".join(run.text for run in runs)


def test_a_short_text_is_shown_whole_with_its_matches_marked() -> None:
    assert snippet("Compress\n  a file.", {"compress": 2.0}) == [Run("Compress", True), Run(" a file.", False)]


def test_a_long_text_is_shown_where_the_most_distinct_weight_lies() -> None:
    text = f"file file file {FILLER} open a zip archive {FILLER}"
    runs = snippet(text, {"file": 1.0, "zip": 1.0, "archive": 1.0})
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
def test_a_snippet_is_a_stretch_of_the_text_and_not_longer_than_asked(
    text: str, weights: dict[str, float], width: int
) -> None:
    runs = snippet(text, weights, width=width)
    assert shown(runs).strip("…") in " ".join(text.split())
    assert len(shown(runs)) <= width + 2
    assert all(one.match != two.match for one, two in pairwise(runs))


def test_the_default_width_is_a_few_lines() -> None:
    assert len(shown(snippet(FILLER * 3, {}))) <= WIDTH + 1
