"""The pairs are what they claim to be, and a passage is above another only by its score."""

import json

import numpy as np
import pytest

from model.encoder import Encoder
from runs.limits import CONTRASTS, Pair, contrast, fill, long_documents, measure, outcomes, table
from runs.results import wilson

LEAST = 30


@pytest.mark.parametrize("name", ["negation", "numbers", "long"])
def test_a_set_is_large_enough_and_no_pair_occurs_twice(name: str) -> None:
    items = [json.loads(line) for line in (CONTRASTS / f"{name}.jsonl").read_text().splitlines()]
    assert len(items) >= LEAST
    for field in ("query", "right", "wrong"):
        assert len({item[field] for item in items}) == len(items)


def test_every_language_says_all_of_every_item() -> None:
    items = [json.loads(line) for line in (CONTRASTS / "languages.jsonl").read_text().splitlines()]
    assert 3 * len(items) >= LEAST
    for item in items:
        assert set(item) == {"topic", "en", "de", "fr", "es"}
        assert all(set(item[language]) == {"query", "right", "wrong"} for language in ("en", "de", "fr", "es"))


def test_scores_decide_and_equal_ones_count_half(tiny_encoder: Encoder) -> None:
    pairs = [
        Pair("cold water", "cold water", "the horse"),
        Pair("the horse", "cold water", "the horse"),
        Pair("\u2603", "cold water", "the horse"),
        Pair("fish", "a dog", "a dog"),
    ]
    found = outcomes(tiny_encoder, pairs)
    np.testing.assert_array_equal(found["bm25"], [1, 0, 0.5, 0.5])
    np.testing.assert_array_equal(found["fused"][2:], [0.5, 0.5])
    query, *passages = tiny_encoder.encode_queries(["the horse"]) + tiny_encoder.encode_documents(
        ["cold water", "the horse"]
    )
    right, wrong = (query.vector.score(passage.vector) for passage in passages)
    assert [found[name][1] for name in ("fused", "cls", "ot")] == [
        right.score > wrong.score,
        right.cls > wrong.cls,
        right.ot > wrong.ot,
    ]


def test_filler_comes_up_to_the_tokens_asked_for(tiny_encoder: Encoder) -> None:
    words = ["cold", "unknowable", "water"]
    for tokens in (0, 1, 11, 40):
        filled = fill(tiny_encoder, words, tokens)
        assert tokens - 10 < len(tiny_encoder.token_ids(" ".join(filled))) <= tokens
        assert filled == (words * 40)[: len(filled)]


def test_nothing_behind_the_window_is_seen_but_by_bm25(tiny_encoder: Encoder) -> None:
    behind = long_documents(tiny_encoder)["answer behind the window"]
    assert {name: each.mean for name, each in behind.accuracy.items()} == {
        "fused": 0.5,
        "cls": 0.5,
        "ot": 0.5,
        "bm25": 1,
    }


def test_all_sets_are_measured_with_intervals_around_the_accuracies(tiny_encoder: Encoder) -> None:
    result = measure(tiny_encoder)
    assert set(result.groups) == {"negation", "numbers", "languages", "long documents"}
    sets = [each for group in result.groups.values() for each in group.values()]
    assert len(list(table(result))) == 1 + len(result.groups) + len(sets)
    for each in sets:
        assert set(each.accuracy) == {"fused", "cls", "ot", "bm25"}
        assert all(0 <= one.low <= one.mean <= one.high <= 1 for one in each.accuracy.values())


def test_an_interval_for_a_few_trials_is_the_published_one() -> None:
    """Newcombe (1998), table I: 81 of 263, 15 of 148, 0 of 20 and 1 of 29."""
    for count, right, low, high in (
        (263, 81, 0.2553, 0.3662),
        (148, 15, 0.0624, 0.1605),
        (20, 0, 0, 0.1611),
        (29, 1, 0.0061, 0.1718),
    ):
        found = wilson(right / count, count)
        assert (found.low, found.high) == pytest.approx((low, high), abs=1e-4)
    every = contrast("", dict.fromkeys(("fused",), np.ones(8)))
    assert every.accuracy["fused"].high == pytest.approx(1)
