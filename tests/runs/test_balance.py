"""The parts of the right passage and of the best wrong one, by hand."""

import numpy as np
import pytest

from model.artifact import Artifact
from model.encoder import Encoder
from model.rarity import Rarity
from model.vector import FusedVector, Parts
from runs.balance import contests_of, measure, summarize, table
from runs.judged_vectors import JudgedVectors, truncate


def vector(cls: float, ot: float) -> FusedVector:
    return FusedVector(np.array([cls], np.float32), np.array([7]), np.array([ot], np.float32))


def test_the_best_right_passage_meets_the_best_of_the_others(tiny_artifact: Artifact) -> None:
    documents = {"a": vector(1, 1), "b": vector(3, 1), "c": vector(2, 5), "d": vector(0, 6)}
    qrels = {"q": {"a": 1, "b": 2, "d": 0}, "all": {"a": 1, "b": 1, "c": 1, "d": 1}, "none": {"x": 1}}
    as_it_is = tiny_artifact.manifest.model_copy(update={"rarity_weight": None})
    judged = JudgedVectors("hand:test", qrels, {}, dict.fromkeys(qrels, vector(2, 1)), documents, as_it_is)
    assert list(contests_of(judged, 1, 1)) == [(Parts(6, 1), Parts(4, 5))]


def test_shares_and_wins_are_counted_over_queries() -> None:
    contests = np.array([[[3, 1], [1, 2]], [[1, 1], [2, 1]]], float)
    edges = np.array([0.0, 1.5, 3.0])
    found = summarize(contests, edges, edges)
    assert (found.queries, found.mean_share.mean) == pytest.approx((2, (0.75 + 0.5) / 2))
    assert (found.agrees.mean, found.cls.agrees.mean, found.ot.agrees.mean) == (0.5, 0.5, 0)
    assert (found.cls.right.counts, found.ot.right.counts) == ([1, 1], [2, 0])


def test_every_query_with_a_right_passage_is_in_each_distribution(judged: JudgedVectors, tiny_encoder: Encoder) -> None:
    result = measure(tiny_encoder, [judged])
    [each] = result.collections.values()
    assert each.queries == 3
    for histogram in (each.share, each.cls.right, each.cls.wrong, each.ot.right, each.ot.wrong):
        assert sum(histogram.counts) == 3
        assert len(histogram.edges) == len(histogram.counts) + 1
    best = [contest.right.score for contest in contests_of(judged, 16, 32)]
    query, held = truncate(judged.queries["q1"], 16), {id: truncate(v, 32) for id, v in judged.documents.items()}
    manifest = judged.manifest
    assert manifest.rarity_weight
    rarity = Rarity.counted(held.values(), manifest.vocabulary_size, manifest.rarity_weight)
    assert best[0] == pytest.approx(rarity.weigh(query).score(held["speed"]).score, abs=1e-4)
    assert len(list(table(result))) == 3
