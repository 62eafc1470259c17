"""A large embedded build consists of parts that are searched at the same time, and answers as one part does."""

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

import indexer.edge
import indexer.edge_store
import indexer.filling
from indexer.build import BuildOptions, build_index
from indexer.edge import EdgeEngine
from indexer.filling import Tally
from indexer.store import Store
from model.encoder import Encoder
from tests.indexer.brute_force import BruteForce, assert_same_hits, new_build, random_points, random_queries
from tests.indexer.collection import random_documents

PART = 100
POINTS = random_points(4 * PART + 30, seed=3)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (indexer.edge, indexer.edge_store):
        monkeypatch.setattr(module, "INDEXING_THRESHOLD_KB", 1)  # 16 points of 16 dimensions
    monkeypatch.setattr(indexer.edge_store, "PART_POINTS", PART)


def fill(store: Store) -> None:
    for at in range(0, len(POINTS), 50):
        store.upsert(POINTS[at : at + 50])
        if store.ripe():
            store.optimize()
    store.optimize()


def test_parts_answer_as_brute_force_does_also_when_their_points_change(tmp_path: Path) -> None:
    with closing(EdgeEngine(tmp_path).create(new_build("b1"))) as store:
        fill(store)
        assert store.condition().segments == 6  # four, the rest, and what takes writes
        moved = [replace(POINTS[at], vector=POINTS[-1 - at].vector) for at in (0, PART, 2 * PART)]
        store.upsert(moved)
        store.delete([POINTS[1].id, POINTS[PART + 1].id])
        now = BruteForce([*POINTS, *moved])
        del now.points[POINTS[1].id], now.points[POINTS[PART + 1].id]
        assert store.count() == len(now.points)
        for query in random_queries(20, seed=4):
            assert_same_hits(store.search(query, limit=10), now.search(query))


def test_more_parts_than_are_wanted_become_fewer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexer.edge, "PARTS", 2)
    with closing(EdgeEngine(tmp_path).create(new_build("b1"))) as store:
        fill(store)
        assert store.condition().segments <= 3
        assert store.count() == len(POINTS)


def test_a_build_is_indexed_part_by_part_while_it_is_filled_and_says_so(
    tmp_path: Path, tiny_encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexer.filling, "FLUSH_S", 0.0)
    stages: list[str] = []

    def watch(tally: Tally) -> None:
        if not stages or stages[-1] != tally.stage:
            stages.append(tally.stage)

    engine = EdgeEngine(tmp_path)
    build = build_index(engine, tiny_encoder, random_documents(3 * PART), BuildOptions(index="parts"), watch)
    assert stages[:4] == ["encoding", "indexing", "encoding", "indexing"]
    assert stages[-3:] == ["indexing", "verifying", "ready"]
    with closing(engine.open("parts", build.id)) as store:
        assert store.condition().segments >= 3
        assert store.count() == 3 * PART
