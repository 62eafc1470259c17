"""The embedded engine between processes: who may open a build, and what survives a process that is killed."""

import os
import re
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from indexer.edge import EdgeEngine
from indexer.locks import BuildLock
from indexer.store import BuildLocked, StoreError
from tests.indexer.brute_force import new_build, random_points

OPEN = """
import sys
from pathlib import Path
from indexer.edge import EdgeEngine
from indexer.store import StoreError

try:
    store = EdgeEngine(Path(sys.argv[1])).open("test-birds", "one", write=sys.argv[2] == "write")
except StoreError as error:
    sys.exit(f"{type(error).__name__}: {error}")
print(store.count())
if sys.argv[2] == "hold":
    sys.stdout.flush()
    sys.stdin.read()
"""

WRITE_AND_DIE = """
import os, signal, sys
from pathlib import Path
from indexer.edge import EdgeEngine
from tests.indexer.brute_force import new_build, random_points

store = EdgeEngine(Path(sys.argv[1])).create(new_build("one"))
points = random_points(300, seed=1)
store.upsert(points[:200])
store.flush()
store.delete([point.id for point in points[:50]])
store.flush()
store.upsert(points[200:])
os.kill(os.getpid(), signal.SIGKILL)
"""

COLD_IMPORT = """
import sys
import indexer.edge
print(*{"qdrant_client", "fastapi", "torch", "transformers"} & sys.modules.keys())
"""


def run(script: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False)


def fill(root: Path, points: int = 10) -> EdgeEngine:
    engine = EdgeEngine(root)
    store = engine.create(new_build("one"))
    store.upsert(random_points(points, seed=1))
    store.flush()
    store.close()
    return engine


def test_readers_in_several_processes_share_a_build(tmp_path: Path) -> None:
    mine = fill(tmp_path).open("test-birds", "one")
    also_mine = EdgeEngine(tmp_path).open("test-birds", "one")
    theirs = run(OPEN, tmp_path, "read")
    assert (theirs.returncode, theirs.stdout.strip()) == (0, "10")
    assert mine.count() == also_mine.count() == 10
    mine.close()
    also_mine.close()


def test_a_writer_shuts_out_others_and_is_named(tmp_path: Path) -> None:
    engine = fill(tmp_path)
    store = engine.open("test-birds", "one", write=True)
    for purpose in ("write", "read"):
        refused = run(OPEN, tmp_path, purpose)
        assert refused.returncode == 1
        assert re.search(rf"^BuildLocked: .* is being written by process {os.getpid()} on \S+;", refused.stderr)
    with pytest.raises(BuildLocked):
        engine.create(new_build("one"))
    with pytest.raises(BuildLocked):
        engine.drop(new_build("one"))
    store.upsert(random_points(20, seed=2))
    store.flush()
    store.close()
    assert run(OPEN, tmp_path, "write").stdout.strip() == "20"


def test_a_reader_elsewhere_keeps_a_build_from_being_written_and_dropped(tmp_path: Path) -> None:
    engine = fill(tmp_path)
    with subprocess.Popen(
        [sys.executable, "-c", OPEN, tmp_path, "hold"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline().strip() == "10"
        with pytest.raises(BuildLocked, match="is being read by another process; stop that process first"):
            engine.open("test-birds", "one", write=True)
        with pytest.raises(BuildLocked):
            engine.drop(new_build("one"))
        reader.communicate()
    engine.drop(new_build("one"))
    assert engine.builds("test-birds") == []


def test_what_was_flushed_survives_a_kill_and_the_lock_does_not(tmp_path: Path) -> None:
    assert run(WRITE_AND_DIE, tmp_path).returncode == -signal.SIGKILL
    points = random_points(300, seed=1)
    for write in (False, True):
        store = EdgeEngine(tmp_path).open("test-birds", "one", write=write)
        found = {point.id for point in store.scroll()}
        assert {point.id for point in points[50:200]} <= found
        assert not {point.id for point in points[:50]} & found
        store.close()


def test_what_a_killed_create_or_drop_left_is_removed_by_the_next_create(tmp_path: Path) -> None:
    engine = fill(tmp_path)
    builds = tmp_path / "indexes" / "test-birds" / "builds"
    (builds / "one" / "build.json").unlink()  # the first thing that `drop` does, and the last that `create` does
    (builds / "bare").mkdir()
    (builds / "begun").mkdir()
    somebody = BuildLock(builds / "begun", write=True)
    engine.create(new_build("two")).close()
    assert sorted(path.name for path in builds.iterdir()) == ["begun", "two"]
    with pytest.raises(BuildLocked):
        engine.create(new_build("begun"))
    somebody.release()
    engine.create(new_build("begun")).close()
    assert {build.id for build in engine.builds("test-birds")} == {"begun", "two"}


def test_an_embedded_build_of_before_there_was_a_payload_index_gets_it_when_it_is_written_to(tmp_path: Path) -> None:
    engine = EdgeEngine(tmp_path)
    engine.create(build := new_build("one")).close()
    declared = build.model_copy(update={"fields": {"metadata.lang": "keyword"}})
    engine.save(declared)  # now the build has a field more than its folder
    for write in (True, False):
        with closing(engine.open("test-birds", "one", write=write)) as store:
            assert store.condition().fields == declared.indexed_fields.keys()


def test_a_damaged_folder_is_an_error_that_names_the_build(tmp_path: Path) -> None:
    engine = fill(tmp_path)
    folder = tmp_path / "indexes" / "test-birds" / "builds" / "one"
    (folder / "shard" / "edge_config.json").write_text("{")
    with pytest.raises(StoreError, match=r"Build one of index test-birds: .*build the index again"):
        engine.open("test-birds", "one")
    (folder / "build.json").write_text("{}")
    with pytest.raises(StoreError, match=r"build\.json is damaged \(id: Field required\)\. Restore it") as raised:
        engine.builds("test-birds")
    assert "\n" not in str(raised.value)


def test_a_damaged_pointer_is_an_error_of_the_store(tmp_path: Path) -> None:
    engine = fill(tmp_path)
    (tmp_path / "indexes" / "test-birds" / "current").write_bytes(b"\xff")
    with pytest.raises(StoreError, match="not allowed"):
        engine.published("test-birds")


def test_the_engine_is_imported_without_the_client() -> None:
    imported = run(COLD_IMPORT)
    assert (imported.returncode, imported.stdout.strip()) == (0, "")
