"""A vector cut afterwards is the one the encoder would have given, and what is measured on it is what a search does."""

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.build import BuildOptions, build_index
from indexer.edge import EdgeEngine
from indexer.evaluate import EvaluationOptions, evaluate
from indexer.sources import read_documents
from model.encoder import Encoder
from model.vector import FusedVector
from runs.judged_vectors import JudgedVectors, read_judged, truncate
from runs.results import Truncation, read, short, write
from runs.retrieval_time import Builds, Way
from runs.truncate import cost, measure, table, ways_around
from tests.conftest import TEXTS


def assert_equal(one: FusedVector, two: FusedVector) -> None:
    np.testing.assert_array_equal(one.ot_indices, two.ot_indices)
    np.testing.assert_allclose(one.ot_values, two.ot_values, atol=1e-6)
    np.testing.assert_allclose(one.cls, two.cls, atol=1e-6)


@pytest.mark.parametrize("k", [1, 5, 16, 32])
def test_cutting_a_vector_is_encoding_with_a_smaller_k(k: int, tiny_encoder: Encoder) -> None:
    everything = tiny_encoder.encode_documents(TEXTS, k=tiny_encoder.artifact.manifest.vocabulary_size)
    for whole, cut in zip(everything, tiny_encoder.encode_documents(TEXTS, k=k), strict=True):
        assert_equal(truncate(whole.vector, k), cut.vector)


@given(st.lists(st.sampled_from([0.5, 1.0, 2.0, 3.0]), min_size=1, max_size=20), st.integers(1, 25))
def test_what_is_kept_is_never_lighter_than_what_is_not(values: list[float], k: int) -> None:
    whole = FusedVector(np.zeros(2, np.float32), np.arange(len(values)) * 3, np.array(values, np.float32))
    cut = truncate(whole, k)
    left = np.delete(whole.ot_values, cut.ot_indices // 3)
    assert len(cut.ot_indices) == min(k, len(values))
    assert (np.diff(cut.ot_indices) > 0).all()
    assert not left.size or cut.ot_values.min() >= left.max()


def test_kept_vectors_are_read_back_as_they_were_and_not_for_other_texts(
    collection: Path, judged: JudgedVectors, tiny_encoder: Encoder, tmp_path: Path
) -> None:
    for _ in range(2):
        kept = read_judged(f"{collection}:test", tiny_encoder, tmp_path)
        assert len(list(tmp_path.iterdir())) == 2
    assert kept.name == judged.name == "words:test"
    assert list(kept.documents) == list(judged.documents)
    for side in ("queries", "documents"):
        for id, vector in getattr(kept, side).items():
            assert_equal(vector, getattr(judged, side)[id])
    assert set(judged.qrels) - set(judged.queries) == {"q4"}  # it has no word that the model knows


def test_the_default_row_is_what_evaluate_finds(
    collection: Path, judged: JudgedVectors, tiny_encoder: Encoder, tmp_path: Path
) -> None:
    result = measure(tiny_encoder, [judged], time_queries=2, rounds=0)
    found = evaluate(collection, tiny_encoder, tmp_path, EvaluationOptions())
    [default] = [row for row in result.rows if row.is_default]
    alone = {row.ranking: row for row in result.rows if row.ranking != "fused"}
    for name, row in {"fused": default, **alone}.items():
        assert row.ndcg["words:test"].model_dump() == pytest.approx(found.systems[name]["nDCG@10"].model_dump())
    assert (default.k_document, default.k_query, default.minus_default["words:test"].high) == (32, 16, 0)


def test_exact_rankings_are_those_of_the_engine(
    collection: Path, judged: JudgedVectors, tiny_encoder: Encoder, tmp_path: Path
) -> None:
    engine = EdgeEngine(tmp_path)
    build = build_index(engine, tiny_encoder, read_documents([collection]), BuildOptions())
    ranker = judged.ranker(32)
    queries = {id: truncate(vector, 16) for id, vector in judged.queries.items()}
    runs = ranker.runs(queries)
    with closing(engine.open("default", build.id)) as store:
        for id, query in queries.items():
            for mode in ("fused", "cls", "ot"):
                found = store.search(build.weighed(query), mode=mode, limit=100)
                hits = {str(hit.point.payload["doc_id"]): hit.score for hit in found}
                assert runs[mode][id] == pytest.approx(hits, abs=1e-4)


def test_bytes_are_those_of_floats_and_of_kept_terms() -> None:
    texts = {
        "a": FusedVector(np.zeros(4, np.float32), np.arange(10), np.ones(10, np.float32)),
        "b": FusedVector(np.zeros(4, np.float32), np.arange(2), np.ones(2, np.float32)),
    }
    assert cost(Way("fused", 6, 1), texts, texts) == (4, 1, 4 * 4 + 8 * 4)
    assert cost(Way("ot", 6, None), texts, texts) == (4, 6, 8 * 4)
    assert cost(Way("cls", 6, 1), texts, texts) == (0, 0, 16)


def test_each_k_is_varied_around_the_default_which_comes_first() -> None:
    ways = list(ways_around(Way("fused", 128, 32)))
    assert ways[0] == Way("fused", 128, 32)
    assert len(set(ways)) == len(ways) == 1 + 6 + 5 + 2
    assert all(way.k_document == 128 or way.k_query == 32 for way in ways)


def test_a_build_for_timing_holds_the_cut_vectors(judged: JudgedVectors, tmp_path: Path) -> None:
    with Builds(judged.documents, tmp_path) as builds:
        points = {point.payload["doc_id"]: point.vector for point in builds.store(7).scroll()}
        assert builds.store(7) is builds.store(7)
        assert builds.disk_bytes(7) > 4 * 16
    assert points.keys() == judged.documents.keys()
    for id, vector in judged.documents.items():
        assert_equal(points[id], truncate(vector, 7))


def test_a_measurement_with_times_is_written_and_read_back(
    judged: JudgedVectors, tiny_encoder: Encoder, tmp_path: Path
) -> None:
    result = measure(tiny_encoder, [judged, judged._replace(name="again")], time_queries=3, rounds=1)
    assert result.documents == {"words:test": 7, "again": 7}
    assert (result.indexed, result.timed_queries) == (14, 3)
    assert all(row.search_ms and row.search_ms.median > 0 for row in result.rows)
    assert all((row.disk_bytes is not None) == (row.ranking == "fused") for row in result.rows)
    write(result, tmp_path / "new/truncation.json")
    again = read(Truncation, tmp_path / "new/truncation.json")
    assert again is not None
    assert list(table(again)) == list(table(Truncation.model_validate(short(result.model_dump()))))
    assert read(Truncation, tmp_path / "nothing.json") is None
