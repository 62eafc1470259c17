"""How rare words are in a collection: the counts, the formula, and a query weighed by them."""

import json
import math

import numpy as np
import pytest
from pydantic import ValidationError

from model.artifact import Artifact, digest
from model.rarity import USUAL_NATS, Rarity
from model.vector import FusedVector


def bag(*terms: int) -> FusedVector:
    return FusedVector(np.ones(2, np.float32), np.array(terms), np.arange(1, 1 + len(terms), dtype=np.float32))


BAGS = [bag(0, 1), bag(0, 4), bag(0), bag(0, 1, 4), bag(1)]


def test_a_query_is_multiplied_by_the_weight_and_the_rarity_that_bm25_knows() -> None:
    rarity = Rarity.counted(iter(BAGS), vocabulary=6, weight=0.3)
    query = bag(0, 1, 3, 4)
    weighed = rarity.weigh(query)
    held = {0: 4, 1: 3, 3: 0, 4: 2}
    expected = [
        value * 0.3 * (5 * math.log(1 + (5 - n + 0.5) / (n + 0.5)) + 20 * USUAL_NATS) / 25
        for value, n in zip([1, 2, 3, 4], held.values(), strict=True)
    ]
    assert weighed.ot_values == pytest.approx(expected)
    assert weighed.ot_values.dtype == np.float32
    assert (weighed.ot_values > 0).all()
    assert weighed.ot_indices.tolist() == query.ot_indices.tolist()
    assert weighed.cls is query.cls


def test_a_word_that_every_passage_holds_weighs_little_and_never_less_than_nothing() -> None:
    rarity = Rarity.counted([bag(0)] * 20_000, vocabulary=2, weight=1.0)
    common, absent = rarity.weigh(bag(0, 1)).ot_values
    assert 0 < common < 0.005
    assert absent / 2 == pytest.approx(math.log(40_002), rel=1e-2)


def test_one_passage_says_next_to_nothing_about_words() -> None:
    rarity = Rarity.counted([bag(0)], vocabulary=2, weight=1.0)
    held, absent = rarity.weigh(bag(0, 1)).ot_values / [1, 2]
    assert 0.95 * USUAL_NATS < held < absent < USUAL_NATS


def test_it_is_kept_as_json_and_is_small() -> None:
    random = np.random.default_rng(0)
    bags = [
        FusedVector(np.ones(1, np.float32), np.unique(random.zipf(1.3, 90) % 30_522), np.ones(1, np.float32))
        for _ in range(2_000)
    ]
    rarity = Rarity.counted(bags, vocabulary=30_522, weight=0.4)
    kept = rarity.model_dump_json()
    assert len(kept) < 40_000
    again = Rarity.model_validate_json(kept)
    assert np.array_equal(again.nats, rarity.nats)
    assert again == rarity
    with pytest.raises(ValidationError):
        Rarity.model_validate(json.loads(kept) | {"weight": 0})


def test_blindly_every_word_is_as_rare_as_words_usually_are() -> None:
    one, other = (Rarity.counted(bags, vocabulary=6, weight=0.3) for bags in (BAGS, BAGS[:1]))
    blind = one.weigh_blindly(bag(0, 5)).ot_values
    assert blind == pytest.approx([0.3 * USUAL_NATS, 0.6 * USUAL_NATS])
    assert np.array_equal(blind, other.weigh_blindly(bag(0, 5)).ot_values)


def test_the_fingerprint_knows_the_weight_and_one_without_it_is_what_it_was(tiny_artifact: Artifact) -> None:
    manifest = tiny_artifact.manifest
    louder, without = (manifest.model_copy(update={"rarity_weight": weight}) for weight in (0.9, None))
    assert len({digest(tiny_artifact.path, each) for each in (manifest, louder, without)}) == 3
