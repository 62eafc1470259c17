"""An evaluation measures what was searched, and its figures can be checked with other tools."""

import json
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import ir_measures
import numpy as np
import pytest

from indexer.documents import load_qrels
from indexer.edge import EdgeEngine
from indexer.evaluate import Evaluation, EvaluationOptions, evaluate
from indexer.exact import ExactScores, compare
from indexer.filling import Tally
from indexer.judgement import Opened, read_judged
from indexer.measures import MEASURES, judge, write_run
from indexer.probing import make_probe_set
from indexer.store import Chunking, Hit
from model.encoder import Encoder
from model.lines import SourceError
from model.vector import Parts
from tests.indexer.brute_force import random_points, random_queries

WORDS = (
    "file fire water city home day night sound light music list word sea island wine bread dog horse bird fish".split()
)


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """150 documents of three words; each of 19 queries asks for the documents that hold both of its words."""
    folder = tmp_path_factory.mktemp("beir") / "words"
    (folder / "qrels").mkdir(parents=True)
    rng = np.random.default_rng(7)
    texts = {f"d{number}": " ".join(rng.choice(WORDS, 3, replace=False)) for number in range(150)}
    queries = {f"q{number}": f"{one} {two}" for number, (one, two) in enumerate(pairwise(WORDS))}
    _write_jsonl(folder / "corpus.jsonl", [{"_id": id, "title": "", "text": text} for id, text in texts.items()])
    _write_jsonl(folder / "queries.jsonl", [{"_id": id, "text": text} for id, text in queries.items()])
    judged = [
        (q, d) for q, asked in queries.items() for d, text in texts.items() if set(asked.split()) <= set(text.split())
    ]
    lines = ["query-id\tcorpus-id\tscore", *(f"{query}\t{document}\t1" for query, document in judged), "q0\td0\t0"]
    (folder / "qrels/test.tsv").write_text("\n".join(lines))
    return folder


def _write_jsonl(path: Path, records: list[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("index")


@pytest.fixture(scope="module")
def evaluation(collection: Path, runs: Path, index: Path, tiny_encoder: Encoder) -> Evaluation:
    return evaluate(collection, tiny_encoder, index, EvaluationOptions(runs=runs))


def test_every_ranking_is_measured_with_an_interval_around_its_mean(evaluation: Evaluation) -> None:
    assert set(evaluation.systems) == {"bm25", "cls", "ot", "rrf", "fused"}
    for measures in evaluation.systems.values():
        assert set(measures) == set(MEASURES)
        assert all(0 <= each.low <= each.mean <= each.high <= 1 for each in measures.values())
    assert evaluation.systems["bm25"]["nDCG@10"].mean > 0.9  # the judgements are about words


def test_differences_are_those_of_the_means(evaluation: Evaluation) -> None:
    assert set(evaluation.fused_minus) == {"bm25", "cls", "ot", "rrf"}
    for name, measures in evaluation.fused_minus.items():
        for measure, difference in measures.items():
            both = (evaluation.systems[system][measure].mean for system in ("fused", name))
            assert difference.mean == pytest.approx(next(both) - next(both))


def test_run_files_read_back_to_the_same_figures(evaluation: Evaluation, runs: Path, collection: Path) -> None:
    qrels = load_qrels(collection)
    for name, measures in evaluation.systems.items():
        run = list(ir_measures.read_trec_run(str(runs / f"{name}.trec")))  # type: ignore[no-untyped-call]  # ir-measures has no types
        read_back = ir_measures.calc_aggregate(list(MEASURES.values()), qrels, run)
        for measure, expected in measures.items():
            assert read_back[MEASURES[measure]] == pytest.approx(expected.mean)


def test_a_run_file_has_ranks_from_1_with_falling_scores(evaluation: Evaluation, runs: Path) -> None:
    ranked: dict[str, list[float]] = {}
    for line in (runs / "fused.trec").read_text().splitlines():
        query, zero, _, rank, score, tag = line.split(" ")
        scores = ranked.setdefault(query, [])
        scores.append(float(score))
        assert (zero, int(rank), tag) == ("Q0", len(scores), "fused")
    assert len(ranked) == evaluation.queries
    assert all(scores == sorted(scores, reverse=True) for scores in ranked.values())


def test_the_engine_ranks_as_the_exact_scores_do(evaluation: Evaluation) -> None:
    exactness = evaluation.exactness
    assert (exactness.queries, exactness.overlap_at_10, exactness.same_order) == (evaluation.queries, 1.0, 1.0)
    assert exactness.largest_score_error <= 1e-4
    assert exactness.largest_part_error <= 1e-4
    assert exactness.largest_parts_gap <= 1e-4


def test_what_a_build_will_be_asked_while_it_is_served_has_the_figure_of_the_evaluation(
    evaluation: Evaluation, collection: Path, index: Path, tiny_encoder: Encoder
) -> None:
    engine = EdgeEngine(index)
    (build,) = engine.builds("evaluation")
    with closing(engine.open(build.index, build.id)) as store:
        probe = make_probe_set(Opened(store, tiny_encoder), read_judged(str(collection)))
    assert probe
    assert len(probe.queries) == evaluation.queries
    assert probe.own["ndcg_at_10"].mean == pytest.approx(evaluation.systems["fused"]["nDCG@10"].mean)


def test_a_kept_index_is_used_again_and_gives_the_same_figures(
    collection: Path, tiny_encoder: Encoder, tmp_path: Path
) -> None:
    built: list[str] = []

    def watch(tally: Tally) -> None:
        built.append(tally.stage)

    first, second = (
        evaluate(collection, tiny_encoder, tmp_path, EvaluationOptions(), watch).model_dump(exclude={"rates"})
        for _ in range(2)
    )
    assert built.count("ready") == 1
    assert first == second


def test_documents_that_begin_alike_are_told_apart_by_their_passages_only(
    collection: Path, tiny_encoder: Encoder, tmp_path: Path
) -> None:
    folder = tmp_path / "long"
    (folder / "qrels").mkdir(parents=True)
    for name in ("queries.jsonl", "qrels/test.tsv"):
        (folder / name).write_bytes((collection / name).read_bytes())
    records = [json.loads(line) for line in (collection / "corpus.jsonl").read_text().splitlines()]
    long = [record | {"text": "the data of the king. " * 15 + record["text"]} for record in records]
    _write_jsonl(folder / "corpus.jsonl", long)
    cut, passages = (
        evaluate(folder, tiny_encoder, tmp_path / "index", EvaluationOptions(chunking=chunking, runs=tmp_path / runs))
        for chunking, runs in ((None, "cut"), (Chunking(overlap=0), "passages"))
    )
    assert (cut.documents, cut.passages, cut.truncated) == (150, 150, 150)
    assert (passages.documents, passages.passages, passages.truncated) == (150, 300, 0)
    scores = {
        runs: {line.split()[4] for line in (tmp_path / runs / "fused.trec").read_text().splitlines() if "q0 " in line}
        for runs in ("cut", "passages")
    }
    assert len(scores["cut"]) == 1 < len(scores["passages"])
    assert passages.exactness.same_order == 1.0
    assert passages.systems["bm25"] == cut.systems["bm25"]


def test_a_judged_query_without_a_text_is_an_error(tiny_encoder: Encoder, tmp_path: Path) -> None:
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels/test.tsv").write_text("query-id\tcorpus-id\tscore\nlost\td1\t1\n")
    (tmp_path / "queries.jsonl").write_text('{"_id": "q", "text": "water"}\n')
    with pytest.raises(SourceError, match="no text for 1 judged queries, the first being 'lost'"):
        evaluate(tmp_path, tiny_encoder, tmp_path / "index", EvaluationOptions())


def test_queries_of_unknown_words_only_are_an_error(tiny_encoder: Encoder, tmp_path: Path) -> None:
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels/test.tsv").write_text("q\td\t1\n")
    (tmp_path / "queries.jsonl").write_text('{"_id": "q", "text": "\\u2603"}\n')
    (tmp_path / "corpus.jsonl").write_text('{"_id": "d", "text": "water"}\n')
    with pytest.raises(SourceError, match="none of the 1 judged queries holds a word"):
        evaluate(tmp_path, tiny_encoder, tmp_path / "index", EvaluationOptions())


def test_a_query_that_no_ranking_answers_counts_as_zero() -> None:
    values = judge({"a": {"d": 1}, "b": {"d": 1}}, {"a": {"d": 2.0}})
    np.testing.assert_array_equal(values, [[1, 1, 1], [0, 0, 0]])


def test_white_space_in_an_id_is_refused_by_a_run_file(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="white space: 'q', 'a b'"):
        write_run({"q": {"a b": 1.0}}, tmp_path / "run.trec", "fused")


def test_exact_parts_are_the_inner_products_of_the_vectors() -> None:
    points = random_points(40, seed=1)
    exact = ExactScores(points)
    for query in random_queries(5, seed=2):
        cls, ot = exact.parts(query)
        expected = [query.score(point.vector) for point in points]
        np.testing.assert_allclose(np.stack([cls, ot], axis=1), expected, atol=1e-5)


def test_a_wrong_answer_does_not_agree() -> None:
    points = random_points(40, seed=1)
    (query,) = random_queries(1, seed=2)
    parts = {point.id: query.score(point.vector) for point in points}
    ranked = sorted(points, key=lambda point: -parts[point.id].score)
    hits = [Hit(point, parts[point.id].score, parts[point.id]) for point in ranked]
    exact = ExactScores(points)
    assert compare(exact, query, hits)[:2] == (1.0, True)
    assert compare(exact, query, hits[1:])[:2] == (0.9, False)
    assert compare(exact, query, [hits[1], hits[0], *hits[2:]])[:2] == (1.0, False)
    assert compare(exact, query, hits[:5])[:2] == (0.5, False)
    wrong = [Hit(hit.point, hit.score + 1, Parts(hit.parts.cls, hit.parts.ot + 2)) for hit in hits]
    assert compare(exact, query, wrong)[2:] == pytest.approx((1, 2, 1), abs=1e-5)
