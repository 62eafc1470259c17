"""Which passages may be negatives, and which are drawn: rules that hold for any texts and scores."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.negatives import Candidate, Margin, RankWindow, draw, eligible, known_positives, normal, same, text_key
from model.records import Example, Records, to_line

texts = st.text(st.sampled_from("ab \n"), max_size=6)
scores = st.floats(-50, 50)


@given(
    st.lists(st.builds(Candidate, texts, scores)), st.frozensets(texts.map(normal)), st.frozensets(texts.map(normal))
)
def test_what_may_be_a_negative_is_no_blank_repeated_taken_or_hidden_text(
    candidates: list[Candidate], taken: frozenset[str], hidden: frozenset[str]
) -> None:
    found = list(eligible(candidates, taken, {text_key(text) for text in hidden}))
    chosen = [normal(candidate.text) for candidate in found]
    assert len(set(chosen)) == len(chosen)
    assert not {"", *taken, *hidden} & set(chosen)
    assert not any(same(text, other) for text in chosen for other in taken)
    rest = {normal(candidate.text) for candidate in candidates} - set(chosen) - hidden - {""}
    assert all(any(same(text, other) for other in taken) for text in rest), "nothing else is left out"
    remaining = iter(candidates)
    assert all(candidate in remaining for candidate in found), "the order stays"


def test_a_passage_with_or_without_its_title_is_one_passage() -> None:
    right = {"Gull They nest on cliffs.", "They dive."}
    found = eligible([Candidate("They  nest\non cliffs.", 2), Candidate("Tern They dive.", 1)], right, ())
    assert list(found) == []


@given(st.lists(st.text("abc", max_size=4), unique=True), st.integers(0, 12), st.randoms(use_true_random=False))
def test_a_draw_does_not_depend_on_the_order_and_grows_from_its_beginning(texts: list[str], count: int, rng) -> None:  # type: ignore[no-untyped-def]
    drawn = draw(texts, count, query="q", seed=1)
    assert len(drawn) == min(count, len(texts))
    assert draw(rng.sample(texts, len(texts)), count, query="q", seed=1) == drawn
    assert draw(texts, len(texts), query="q", seed=1)[:count] == drawn


def test_a_draw_depends_on_seed_and_query_and_prefers_no_text() -> None:
    texts = [f"passage {number}" for number in range(20)]
    draws = [draw(texts, 5, query=f"query {number}", seed=seed) for number in range(300) for seed in range(2)]
    assert len({tuple(drawn) for drawn in draws}) > 590
    often = Counter(text for drawn in draws for text in drawn)
    assert min(often.values()) > 100, "3000 draws of 20 texts are 150 each"
    assert max(often.values()) < 200


@given(st.lists(scores, min_size=1), st.floats(0, 1), st.floats(0, 10))
def test_no_known_positive_is_farther_than_the_margin(positives: list[float], share: float, amount: float) -> None:
    limit = Margin(share, amount).limit(positives)
    assert limit <= min(positives)
    assert Margin().limit(positives) == min(positives)


@pytest.mark.parametrize("text", ["", "10", "10:", "0:5", "7:3", "a:b", "-1:5", "1:2:3", "1.5:2"])
def test_ranks_that_are_no_window_are_refused_by_value(text: str) -> None:
    with pytest.raises(ValueError, match=f"'{text}' is not FIRST:LAST"):
        RankWindow.parse(text)


@pytest.mark.parametrize("text", ["", "%", "-5%", "nan", "inf", "5 %", "five"])
def test_a_margin_that_is_no_number_is_refused_by_value(text: str) -> None:
    with pytest.raises(ValueError, match=f"'{text}' is neither"):
        Margin.parse(text)


def test_known_positives_are_those_of_every_record_with_the_same_query(tmp_path: Path) -> None:
    examples = [
        Example("a  gull", ("1",)),
        Example("tern", ("2 ",)),
        Example("a gull", ("3", "4")),
        Example("Tern", ("5",)),
    ]
    path = tmp_path / "train.jsonl"
    path.write_text("".join(to_line(example) + "\n" for example in examples))
    with Records(path) as records:
        positives = known_positives(records)
        assert [positives(example) for example in records] == [{"1", "3", "4"}, {"2"}, {"1", "3", "4"}, {"5"}]


@given(st.lists(st.sampled_from("abc")))
def test_known_positives_equal_a_look_at_every_record(queries: list[str]) -> None:
    records = [Example(query, (str(number),)) for number, query in enumerate(queries)]
    positives = known_positives(records)
    for example in records:
        assert positives(example) == {
            text for other in records if other.query == example.query for text in other.positives
        }
