"""Every fault of a build fails the check that is meant for it; a whole build passes them all and is not changed."""

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import qdrant_edge as edge

import indexer.edge
import indexer.edge_store
from indexer.edge import EdgeEngine
from indexer.edge_store import EdgeStore
from indexer.points import point_id
from indexer.store import Build, Engine, Hit, Point, Store
from indexer.verify import Verification, difference, verify
from model.artifact import Artifact
from model.encoder import Encoder
from model.vector import FusedVector
from tests.indexer.brute_force import new_build, random_points
from tests.indexer.collection import INDEX, built, random_documents

VECTOR = FusedVector(np.ones(16, np.float32), np.array([7, 9]), np.ones(2, np.float32))


@pytest.fixture
def build(engine: Engine, tiny_encoder: Encoder) -> Build:
    return built(engine, tiny_encoder, random_documents(20))


def verified(engine: Engine, build: Build, encoder: Encoder) -> Verification:
    with closing(engine.open(build.index, build.id)) as store:
        return verify(store, build, encoder)


def failed(engine: Engine, build: Build, encoder: Encoder) -> list[str]:
    return [check.name for check in verified(engine, build, encoder).failed]


def changed(engine: Engine, build: Build, vector: FusedVector) -> None:
    """One stored point has another vector, as if the model had gone wrong while it was written."""
    with closing(engine.open(build.index, build.id, write=True)) as store:
        (point,) = store.get([point_id("d3")])
        store.upsert([replace(point, vector=vector)])
        store.flush()


def written_raw(store: EdgeStore, point: Point) -> None:
    """Past our own checks, which would refuse it, as a server refuses it too."""
    ot = edge.SparseVector(point.vector.ot_indices.tolist(), point.vector.ot_values.tolist())
    raw = edge.Point(point.id, {"cls": point.vector.cls.tolist(), "ot": ot}, dict(point.payload))
    store._shard.update(edge.UpdateOperation.upsert_points([raw]))


def test_a_whole_build_passes_every_check(engine: Engine, build: Build, tiny_encoder: Encoder) -> None:
    verification = verified(engine, build, tiny_encoder)
    assert verification.ok
    names = [check.name for check in verification.checks]
    assert {"points", "search indexes", "fingerprint", "dense size", "re-encoding", "vectors", "answers"} <= set(names)
    assert verified(engine, build, tiny_encoder) == verification


def test_passages_are_counted_where_the_build_knows_them(engine: Engine, build: Build, tiny_encoder: Encoder) -> None:
    assert failed(engine, build.model_copy(update={"documents": 7, "passages": 20}), tiny_encoder) == []
    assert failed(engine, build.model_copy(update={"passages": 21}), tiny_encoder) == ["points"]


def test_a_missing_point_fails_the_count(engine: Engine, build: Build, tiny_encoder: Encoder) -> None:
    with closing(engine.open(build.index, build.id, write=True)) as store:
        store.delete([point_id("d3")])
        store.flush()
    assert failed(engine, build, tiny_encoder) == ["points"]


def test_an_empty_build_fails(engine: Engine, tiny_encoder: Encoder) -> None:
    build = new_build("b1")
    engine.create(build).close()
    assert "points" in failed(engine, build, tiny_encoder)


def test_a_vector_of_another_text_fails_the_re_encoding(engine: Engine, build: Build, tiny_encoder: Encoder) -> None:
    changed(engine, build, VECTOR)
    (check,) = verified(engine, build, tiny_encoder).failed
    assert check.name == "re-encoding"
    assert "'d3'" in check.value


def test_a_vector_that_moved_by_more_than_rounding_fails(engine: Engine, build: Build, tiny_encoder: Encoder) -> None:
    with closing(engine.open(build.index, build.id)) as store:
        (point,) = store.get([point_id("d3")])
    for step, names in ((1e-5, []), (1e-3, ["re-encoding"])):
        changed(engine, build, replace(point.vector, ot_values=point.vector.ot_values + np.float32(step)))
        assert failed(engine, build, tiny_encoder) == names


def test_another_model_fails_the_fingerprint(engine: Engine, build: Build, tiny_artifact_int8: Artifact) -> None:
    (check,) = verified(engine, build, Encoder(tiny_artifact_int8, threads=1)).failed
    assert (check.name, check.limit) == ("fingerprint", build.fingerprint[:12])


def test_another_dense_size_fails(engine: Engine, build: Build, tiny_encoder: Encoder) -> None:
    assert failed(engine, build.model_copy(update={"dense_dim": 8}), tiny_encoder) == ["dense size"]


def test_a_term_that_the_model_does_not_know_fails(engine: Engine, build: Build, tiny_encoder: Encoder) -> None:
    changed(engine, build, replace(VECTOR, ot_indices=np.array([7, 100_000])))
    check = next(check for check in verified(engine, build, tiny_encoder).failed if check.name == "vectors")
    assert check.value.startswith("1 broken: document 'd3' has OT index 100000 beyond a vocabulary of")


@pytest.mark.parametrize(
    ("vector", "problem"),
    [
        (replace(VECTOR, cls=np.full(16, np.nan, np.float32)), "NaN or infinity"),
        (replace(VECTOR, ot_values=np.array([1, np.inf], np.float32)), "not finite"),
    ],
)
def test_a_number_that_is_none_fails(tmp_path: Path, tiny_encoder: Encoder, vector: FusedVector, problem: str) -> None:
    engine = EdgeEngine(tmp_path)
    build = built(engine, tiny_encoder, random_documents(20))
    with closing(engine.open(build.index, build.id, write=True)) as store:
        (point,) = store.get([point_id("d3")])
        written_raw(store, replace(point, vector=vector))
        store.flush()
    check = next(check for check in verified(engine, build, tiny_encoder).failed if check.name == "vectors")
    assert "'d3'" in check.value
    assert problem in check.value


def test_a_declared_field_without_an_index_fails(tmp_path: Path, tiny_encoder: Encoder) -> None:
    engine = EdgeEngine(tmp_path)
    build = built(engine, tiny_encoder, random_documents(5))
    declared = build.model_copy(update={"fields": {"metadata.lang": "keyword", "metadata.year": "integer"}})
    (check,) = verified(engine, declared, tiny_encoder).failed
    assert (check.name, check.value) == ("payload indexes", "without metadata.year")


def test_a_build_that_wants_optimizing_fails_until_it_is_done(
    tmp_path: Path, tiny_encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (indexer.edge, indexer.edge_store):
        monkeypatch.setattr(module, "INDEXING_THRESHOLD_KB", 1)  # 16 points of 16 dimensions
    with closing(EdgeEngine(tmp_path).create(new_build("b1"))) as store:
        empty = store.condition()
        store.upsert(random_points(300, seed=1))
        store.flush()
        before = store.condition()
        assert not before.optimized
        assert before.segments >= 1
        assert (before.size_bytes or 0) > (empty.size_bytes or 0) > 0
        assert before.detail == "300 points outside HNSW, 16 may be"
        assert store.condition() == before
        store.optimize()
        assert store.condition().optimized
        check = verify(store, store.build, tiny_encoder).checks[1]
        assert (check.name, check.ok) == ("search indexes", True)


class Forgetful:
    """An engine that never finds the best point."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def search(self, query: FusedVector, *, limit: int) -> list[Hit]:
        return self._store.search(query, limit=limit + 1)[1:]


def test_an_engine_that_misses_hits_fails_the_answers(engine: Engine, build: Build, tiny_encoder: Encoder) -> None:
    with closing(engine.open(build.index, build.id)) as store:
        forgetful: Any = Forgetful(store)
        (check,) = verify(forgetful, build, tiny_encoder).failed
    assert (check.name, check.value) == ("answers", "0.9000")


def test_a_scroll_begins_where_it_is_told(engine: Engine, build: Build) -> None:
    with closing(engine.open(INDEX, build.id)) as store:
        ids = [point.id for point in store.scroll()]
        assert [point.id for point in store.scroll(ids[7])] == ids[7:]
        between = "80000000-0000-0000-0000-000000000000"
        assert [point.id for point in store.scroll(between)] == [id for id in ids if id > between]


def test_the_last_term_that_is_kept_may_be_another_one_by_rounding() -> None:
    one = FusedVector(np.zeros(1, np.float32), np.array([3, 7]), np.array([2, 1], np.float32))
    two = FusedVector(np.zeros(1, np.float32), np.array([3, 9]), np.array([2, 1.00001], np.float32))
    assert difference(one, two, k=2) == pytest.approx(1e-5, rel=0.1)
    assert difference(one, two, k=3) == pytest.approx(1.00001)
    assert difference(one, FusedVector(np.zeros(2, np.float32), one.ot_indices, one.ot_values), k=2) == np.inf
