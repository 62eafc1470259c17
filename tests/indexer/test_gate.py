"""The gate's rule, as a property and by example, and the measures it goes by."""

from pathlib import Path

import ir_measures
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ir_measures import R, nDCG

from indexer.gate import ENOUGH_QUERIES, Limits, finds_less, objections
from indexer.judgement import Judgement, ndcg, read_judged, recall
from indexer.store import Build
from indexer.verify import Check, Verification
from model.estimate import Estimate
from model.lines import SourceError
from tests.indexer.brute_force import new_build

CHANGES = st.lists(st.floats(-1, 1), min_size=3, max_size=3).map(sorted)
TOLERANCE = st.floats(0, 0.1)


def change(low: float, mean: float, high: float) -> Estimate:
    return Estimate(mean=mean, low=low, high=high)


@given(CHANGES, st.integers(1, 1000), TOLERANCE)
def test_the_interval_decides_and_with_few_queries_the_mean_too(
    values: list[float], queries: int, tolerance: float
) -> None:
    low, mean, high = values
    blocked = finds_less(change(low, mean, high), queries, tolerance)
    if high < -tolerance:
        assert blocked
    elif mean >= -tolerance:
        assert not blocked
    else:
        assert blocked == (queries < ENOUGH_QUERIES)


@given(CHANGES, CHANGES, st.integers(1, 1000), st.integers(0, 1000), TOLERANCE)
def test_a_better_build_or_more_queries_never_block_what_passed(
    one: list[float], two: list[float], queries: int, more: int, tolerance: float
) -> None:
    worse, better = map(min, one, two), map(max, one, two)
    if not finds_less(change(*worse), queries, tolerance):
        assert not finds_less(change(*better), queries + more, tolerance)


@given(st.integers(1, 1000), TOLERANCE)
def test_a_build_that_finds_the_same_passes(queries: int, tolerance: float) -> None:
    assert not finds_less(change(0, 0, 0), queries, tolerance)


def facts(documents: int, dead: int = 0) -> Build:
    return new_build("b1").model_copy(update={"documents": documents, "dead": dead})


def verification(*names: str) -> Verification:
    return Verification(
        build="b1", index="notes", checks=[Check(name=name, value="3", limit="4", ok=False) for name in names]
    )


def judgement(mean: float, spread: float, count: int) -> Judgement:
    half, drop = change(0.4, 0.5, 0.6), change(mean - spread, mean, mean + spread)
    names = ("nDCG@10", "Recall@100")
    table, changes = dict.fromkeys(names, half), dict.fromkeys(names, drop)
    return Judgement(queries="known items", count=count, candidate=table, published=table, change=changes)


def test_a_sound_build_that_finds_as_much_has_nothing_against_it() -> None:
    assert objections(facts(80), facts(100), verification(), judgement(0.0, 0.01, 300), Limits()) == []
    assert objections(facts(1), None, verification(), None, Limits()) == []


@pytest.mark.parametrize(
    ("build", "checks", "judged", "words"),
    [
        (facts(79), (), None, "it holds 79 documents where the published build has 100, 21% fewer (limit 20%)"),
        (facts(100, dead=101), (), None, "101 records became no document, more than 100; repair them"),
        (facts(100), ("points",), None, "verification failed at points: 3, expected 4"),
        (facts(100), (), judgement(-0.02, 0.01, 300), "change -0.020 [-0.030, -0.010], allowed -0.005; look at"),
        (facts(100), (), judgement(-0.02, 0.05, 30), "allowed -0.005, too few to exclude it (under 200)"),
    ],
)
def test_each_reason_has_its_figures(
    build: Build, checks: tuple[str, ...], judged: Judgement | None, words: str
) -> None:
    (reason,) = objections(build, facts(100), verification(*checks), judged, Limits())
    assert words in reason


def test_every_reason_is_given_at_once() -> None:
    found = objections(facts(1, dead=999), facts(100), verification("points"), judgement(-0.5, 0, 300), Limits())
    assert len(found) == 4


def test_limits_can_be_widened() -> None:
    wide = Limits(tolerance=0.6, max_shrink=1, max_bad=999)
    assert objections(facts(1, dead=999), facts(100), verification(), judgement(-0.5, 0, 300), wide) == []


@given(st.integers(0, 2**32 - 1))
def test_the_measures_are_those_of_ir_measures(seed: int) -> None:
    rng = np.random.default_rng(seed)
    documents = [f"d{number}" for number in range(150)]
    ranking = [str(document) for document in rng.permutation(documents)[: rng.integers(1, 120)]]
    grades = {document: int(rng.integers(-1, 4)) for document in documents[: rng.integers(1, 20)]} | {"d0": 1}
    run = {"q": {document: -float(rank) for rank, document in enumerate(ranking)}}
    expected = ir_measures.calc_aggregate([nDCG @ 10, R @ 100], {"q": grades}, run)
    assert ndcg(ranking, grades) == pytest.approx(expected[nDCG @ 10])
    assert recall(ranking, grades) == pytest.approx(expected[R @ 100])


def test_a_judged_set_is_a_folder_and_a_split(tmp_path: Path) -> None:
    (tmp_path / "qrels").mkdir()
    (tmp_path / "queries.jsonl").write_text('{"_id": "q", "text": "night"}\n{"_id": "r", "text": "day"}\n')
    for split, line in (("test", "q\towl\t1"), ("dev", "r\tgull\t2"), ("none", "r\tgull\t0")):
        (tmp_path / f"qrels/{split}.tsv").write_text(f"query-id\tcorpus-id\tscore\n{line}\n")
    assert read_judged(str(tmp_path)).texts == {"q": "night"}
    assert read_judged(f"{tmp_path}:dev").qrels == {"r": {"gull": 2}}
    with pytest.raises(SourceError, match="no judged query has both a text and a right answer"):
        read_judged(f"{tmp_path}:none")
    with pytest.raises(SourceError, match="splits here: dev, none, test"):
        read_judged(f"{tmp_path}:train")
