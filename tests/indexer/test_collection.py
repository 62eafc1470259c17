"""How a build is laid out: nothing of it changes a score, and what an engine cannot do is refused by name."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from qdrant_client import models

from indexer.collection import PRESETS, CollectionOptions, parse_options
from indexer.edge import EdgeEngine
from indexer.qdrant import QdrantEngine, collection_config, connect
from indexer.store import Build, Engine, Mode, Point, Store, StoreError
from model.vector import FusedVector
from tests.indexer.brute_force import BruteForce, assert_same_hits, new_build, numbered_point, random_vector
from tests.indexer.conftest import SERVER, opened_engine

WIDE = 2048
"""Dimensions: an engine quantizes a segment from 10,000 KB on, which 1,400 of these are."""


def wide_vector(rng: np.random.Generator, kept: int) -> FusedVector:
    words = random_vector(rng, kept=kept)
    return FusedVector(rng.normal(size=WIDE).astype(np.float32), words.ot_indices, words.ot_values)


def wide_build(id: str, **options: object) -> Build:
    return new_build(id).model_copy(update={"dense_dim": WIDE, "collection": CollectionOptions(**options)})


class Laid(NamedTuple):
    store: Store
    brute: BruteForce
    folder: Path


@pytest.fixture(scope="module")
def points() -> list[Point]:
    rng = np.random.default_rng(1)
    return [numbered_point(number, wide_vector(rng, 24)) for number in range(1_400)]


@pytest.fixture(scope="module", params=["int8", "disk"])
def quantized(
    request: pytest.FixtureRequest, points: list[Point], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Laid]:
    folder = tmp_path_factory.mktemp("quantized")
    with opened_engine("edge", folder) as engine:
        store = engine.create(wide_build("b1", **PRESETS[request.param].model_dump()))
        store.upsert(points)
        store.optimize()
        store.close()
        store = engine.open("test-birds", "b1")
        yield Laid(store, BruteForce(points), folder)
        store.close()


@pytest.mark.parametrize("mode", ["fused", "cls"])
def test_the_score_of_a_quantized_build_is_that_of_its_stored_vectors(quantized: Laid, mode: Mode) -> None:
    assert list(quantized.folder.rglob("quantized.data")), "the engine did not quantize; the test proves nothing"
    rng = np.random.default_rng(2)
    for _ in range(5):
        query = wide_vector(rng, 8)
        assert_same_hits(quantized.store.search(query, mode=mode), quantized.brute.search(query, mode))


def test_without_rescoring_the_engine_gives_other_scores(quantized: Laid, monkeypatch: pytest.MonkeyPatch) -> None:
    import qdrant_edge as edge

    raw = edge.SearchParams(quantization=edge.QuantizationSearchParams(rescore=False))
    monkeypatch.setattr("indexer.edge_requests.RESCORED", raw)
    with pytest.raises(StoreError, match=r"in the engine and .* by its stored vectors"):
        quantized.store.search(wide_vector(np.random.default_rng(3), 8), mode="cls")


@pytest.mark.parametrize("id", ["laptop", "int8", "disk"])
def test_a_preset_changes_no_answer(engine: Engine, id: str, points: list[Point]) -> None:
    few = points[:50]
    store = engine.create(wide_build("b1", **PRESETS[id].model_dump()))  # type: ignore[index]
    store.upsert(few)
    store.optimize()
    query = wide_vector(np.random.default_rng(4), 8)
    assert_same_hits(store.search(query), BruteForce(few).search(query))
    assert engine.builds("test-birds")[0].collection == PRESETS[id]  # type: ignore[index]
    store.close()


def test_what_one_machine_cannot_do_is_refused_by_name_and_leaves_nothing(tmp_path: Path) -> None:
    engine = EdgeEngine(tmp_path)
    with pytest.raises(StoreError, match="has no shard_number=6, replication_factor=2, write_consistency_factor=2"):
        engine.create(wide_build("b1", **PRESETS["cluster"].model_dump()))
    assert engine.builds("test-birds") == []


def test_the_embedded_engine_is_told_graph_and_place(tmp_path: Path) -> None:
    options = {"hnsw_m": 8, "hnsw_ef_construct": 40, "on_disk": True, "on_disk_payload": False}
    EdgeEngine(tmp_path).create(wide_build("b1", **options)).close()
    (file,) = tmp_path.rglob("edge_config.json")
    kept = json.loads(file.read_text())
    assert (kept["hnsw_config"]["m"], kept["hnsw_config"]["ef_construct"]) == (8, 40)
    assert kept["vectors"]["cls"]["memory"] == "cold"
    assert kept["payload_memory"] == "cached"


def test_the_server_is_told_everything() -> None:
    options = {"quantization": "int8", "on_disk": True, "hnsw_m": 8, **PRESETS["cluster"].server_only}
    told = collection_config(wide_build("b1", **options))
    assert (told["shard_number"], told["replication_factor"], told["write_consistency_factor"]) == (6, 2, 2)
    assert told["hnsw_config"].m == 8
    assert told["vectors_config"]["cls"].on_disk
    assert told["sparse_vectors_config"]["ot"].index.on_disk
    assert told["vectors_config"]["cls"].quantization_config.scalar.always_ram


@pytest.mark.server
def test_a_server_keeps_shards_and_quantization() -> None:
    assert SERVER is not None
    with opened_engine("server", Path()) as engine:
        assert isinstance(engine, QdrantEngine)
        engine.create(wide_build("b1", shard_number=2, quantization="int8", hnsw_m=8)).close()
        config = connect(SERVER)._client.get_collection("test-birds--b1").config
        assert config.params.shard_number == 2
        assert config.hnsw_config.m == 8
        assert isinstance(config.params.vectors, dict)
        assert isinstance(config.params.vectors["cls"].quantization_config, models.ScalarQuantization)


@pytest.mark.parametrize(
    ("pair", "complaint"),
    [
        ("shards=2", "known key: shard_number, replication_factor"),
        ("hnsw_m=2", "'hnsw_m=2': input should be greater than or equal to 4"),
        ("quantization=int4", "input should be 'none' or 'int8'"),
        ("on_disk", "'on_disk': input should be a valid boolean"),
    ],
)
def test_an_option_that_is_none_is_refused_with_those_there_are(pair: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        parse_options("laptop", [pair])
