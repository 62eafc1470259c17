"""A build that was broken off goes on where it was, and ends as if it had not been."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from indexer.build import BuildError, BuildOptions, build_index
from indexer.documents import BadRecord, Document
from indexer.edge import EdgeEngine
from indexer.encoders import encoding_apart
from indexer.filling import WINDOW_DOCUMENTS, Tally
from indexer.ledger import Entry, Ledger, ledger_path
from indexer.points import point_id
from indexer.settings import IndexSettings
from indexer.store import Build, BuildLocked, Chunking, Engine, Point, StoreError, StoreUnavailable
from model.artifact import Artifact
from model.encoder import Encoder
from tests.conftest import WORDS
from tests.indexer.brute_force import assert_equal_points

INDEX = "test-resume"
ROOT = Path(__file__).parents[2]
BAD = BadRecord("notes.jsonl", 3, "not JSON", "{")


class PowerCut(Exception):
    """What ends a run in these tests."""


def documents(number: int, *, seed: int = 0) -> list[Document]:
    """Documents of different lengths; some are several passages, some have no word."""
    rng, words = random.Random(seed), WORDS.split()
    texts = [" ".join(rng.choices(words, k=rng.choice([4, 10, 20, 150]))) + "." for _ in range(number)]
    return [
        Document(f"d{at}", text="☃" if at % 50 == 49 else text, source="all", line=at) for at, text in enumerate(texts)
    ]


def until(records: Iterable[Document | BadRecord], stop: int) -> Iterator[Document | BadRecord]:
    yield from islice(records, stop)
    raise PowerCut


def run(
    engine: Engine, encoder: Encoder, records: Iterable[Document | BadRecord], data: Path, **options: object
) -> tuple[Build, Tally]:
    seen = [Tally()]

    def watch(tally: Tally) -> None:
        seen[0] = replace(tally)

    told = BuildOptions(index=INDEX, data=data, dead_letters=data / "dead.jsonl", **options)  # type: ignore[arg-type]
    return build_index(engine, encoder, records, told, watch), seen[0]


def points_of(engine: Engine, build: Build) -> list[Point]:
    store = engine.open(build.index, build.id)
    points = list(store.scroll())
    store.close()
    return points


def assert_same_points(one: list[Point], two: list[Point]) -> None:
    assert len(one) == len(two)
    for left, right in zip(one, two, strict=True):
        assert_equal_points(left, right)


def test_a_failed_build_goes_on_and_encodes_no_document_twice(
    engine: Engine, tiny_encoder: Encoder, tmp_path: Path
) -> None:
    records: list[Document | BadRecord] = [BAD, *documents(900)]
    for stop in (300, 700):
        with pytest.raises(PowerCut):
            run(engine, tiny_encoder, until(records, stop), tmp_path)
    [failed] = engine.builds(INDEX)
    assert failed.state == "failed"
    ready, tally = run(engine, tiny_encoder, records, tmp_path)
    assert (ready.id, ready.state, ready.reason) == (failed.id, "ready", "")
    assert tally.resumed > 2 * WINDOW_DOCUMENTS - 20, "what two runs had written, but for those without a word"
    assert tally.resumed + tally.encoded == ready.documents == 900 - 18
    assert (ready.read, ready.dead) == (901, 19)
    assert len((tmp_path / "dead.jsonl").read_text().splitlines()) == 19, "the letters of all runs"
    unbroken, _ = run(engine, tiny_encoder, records, tmp_path / "other", reuse=False)
    assert unbroken.model_dump(exclude={"id", "created", "seconds", "rate"}) == ready.model_dump(
        exclude={"id", "created", "seconds", "rate"}
    )
    assert_same_points(points_of(engine, ready), points_of(engine, unbroken))


def test_what_changed_or_went_between_two_runs_is_as_the_last_run_read_it(
    engine: Engine, tiny_encoder: Encoder, tmp_path: Path
) -> None:
    before = documents(600)
    with pytest.raises(PowerCut):
        run(engine, tiny_encoder, until(before, 590), tmp_path)
    after = [replace(document, text="the cat") for document in before[:40]] + before[80:]
    ready, tally = run(engine, tiny_encoder, after, tmp_path)
    unbroken, _ = run(engine, tiny_encoder, after, tmp_path / "other", reuse=False)
    assert tally.resumed > 0
    assert ready.documents == unbroken.documents
    assert_same_points(points_of(engine, ready), points_of(engine, unbroken))


def test_another_plan_or_a_restart_begins_anew(tiny_encoder: Encoder, tmp_path: Path) -> None:
    engine, records = EdgeEngine(tmp_path), documents(300)
    with pytest.raises(PowerCut):
        run(engine, tiny_encoder, until(records, 280), tmp_path, source="a.jsonl")
    [left] = engine.builds(INDEX)
    other, tally = run(engine, tiny_encoder, records, tmp_path, source="b.jsonl", reuse=False)
    assert (other.id == left.id, tally.resumed) == (False, 0)
    anew, tally = run(engine, tiny_encoder, records, tmp_path, source="a.jsonl", restart=True, reuse=False)
    assert (anew.id == left.id, tally.resumed) == (False, 0)


def test_the_build_that_is_copied_from_may_be_written_again_once_all_is_copied(
    tiny_encoder: Encoder, tmp_path: Path
) -> None:
    engine, records = EdgeEngine(tmp_path), documents(40)
    older, _ = run(engine, tiny_encoder, records, tmp_path)
    could_write = dict[str, bool]()

    def watch(tally: Tally) -> None:
        try:
            engine.open(INDEX, older.id, write=True).close()
            could_write[tally.stage] = True
        except BuildLocked:
            could_write[tally.stage] = False

    newer = build_index(engine, tiny_encoder, records, BuildOptions(index=INDEX, data=tmp_path), watch)
    assert newer.unchanged == 40
    assert could_write == {"encoding": False, "indexing": True, "verifying": True, "ready": True}


def test_unchanged_documents_are_copied_and_only_the_others_encoded(
    engine: Engine, tiny_encoder: Encoder, tmp_path: Path
) -> None:
    before = documents(400)
    run(engine, tiny_encoder, before, tmp_path)
    after = [replace(before[0], text="a cat"), *before[5:], Document("new", text="two dogs and a horse")]
    ready, tally = run(engine, tiny_encoder, after, tmp_path)
    assert (tally.encoded, ready.unchanged, ready.documents) == (2, 387, 389)
    plain, _ = run(engine, tiny_encoder, after, tmp_path, reuse=False)
    assert (plain.unchanged, plain.truncated) == (0, ready.truncated)
    assert_same_points(points_of(engine, ready), points_of(engine, plain))


def test_vectors_of_another_model_or_of_other_passages_are_not_copied(
    tiny_encoder: Encoder, tiny_artifact_int8: Artifact, tmp_path: Path
) -> None:
    engine, records = EdgeEngine(tmp_path), documents(40)
    run(engine, tiny_encoder, records, tmp_path)
    other, _ = run(engine, Encoder(tiny_artifact_int8, threads=1), records, tmp_path)
    shorter, _ = run(engine, tiny_encoder, records, tmp_path, chunking=Chunking(tokens=20, overlap=4))
    assert (other.unchanged, shorter.unchanged) == (0, 0)
    assert run(engine, tiny_encoder, records, tmp_path)[0].unchanged == 40


def test_documents_of_a_build_from_before_there_were_passages_are_not_copied(
    tiny_encoder: Encoder, tmp_path: Path
) -> None:
    engine, records = EdgeEngine(tmp_path), documents(10)
    old, _ = run(engine, tiny_encoder, records, tmp_path)
    engine.save(old.model_copy(update={"passages": 0}))
    assert run(engine, tiny_encoder, records, tmp_path)[0].unchanged == 0


def test_a_rebuild_mends_what_the_old_build_lost_or_holds_too_much(tiny_encoder: Encoder, tmp_path: Path) -> None:
    engine, records = EdgeEngine(tmp_path), documents(120)
    old, _ = run(engine, tiny_encoder, records, tmp_path)
    store = engine.open(INDEX, old.id, write=True)
    [stray] = store.get([point_id("d7")])
    store.upsert([replace(stray, id=point_id("nobody"))])
    many = next(point for point in store.scroll() if point.payload["chunk"] == 2)
    store.delete([point_id("d1"), many.id])
    store.flush()
    store.close()
    ready, tally = run(engine, tiny_encoder, records, tmp_path)
    assert (tally.encoded, ready.documents) == (2, 118)
    plain, _ = run(engine, tiny_encoder, records, tmp_path, reuse=False)
    assert_same_points(points_of(engine, ready), points_of(engine, plain))


def test_a_build_that_lost_points_on_its_way_says_so_and_the_same_command_mends_it(
    tiny_encoder: Encoder, tmp_path: Path
) -> None:
    engine, records = EdgeEngine(tmp_path), documents(300)
    with pytest.raises(PowerCut):
        run(engine, tiny_encoder, until(records, 290), tmp_path)
    [left] = engine.builds(INDEX)
    store = engine.open(INDEX, left.id, write=True)
    [stray] = store.get([point_id("d7")])
    store.upsert([replace(stray, id=point_id("nobody"))])
    store.delete([point_id("d1"), point_id("d2")])
    store.flush()
    store.close()
    with pytest.raises(BuildError, match="2 documents have lost some; give the same command again"):
        run(engine, tiny_encoder, records, tmp_path)
    ready, tally = run(engine, tiny_encoder, records, tmp_path)
    assert (ready.id, tally.encoded) == (left.id, 2)
    plain, _ = run(engine, tiny_encoder, records, tmp_path, reuse=False)
    assert_same_points(points_of(engine, ready), points_of(engine, plain))


def test_content_that_was_changed_and_changed_back_between_kills_is_not_taken_for_done(
    tiny_encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after the store is durable and before the ledger is: what the ledger says must still hold."""
    engine, first = EdgeEngine(tmp_path), documents(40)
    with pytest.raises(PowerCut):
        run(engine, tiny_encoder, until(first, 30), tmp_path)
    changed = [replace(document, text="a horse and a cat") if document.id == "d3" else document for document in first]

    def cut(self: Ledger, entries: Iterable[Entry]) -> None:
        raise PowerCut

    with monkeypatch.context() as patched:
        patched.setattr(Ledger, "add", cut)
        with pytest.raises(PowerCut):
            run(engine, tiny_encoder, changed, tmp_path)
    ready, _ = run(engine, tiny_encoder, first, tmp_path)
    plain, _ = run(engine, tiny_encoder, first, tmp_path / "other", reuse=False)
    assert_same_points(points_of(engine, ready), points_of(engine, plain))


def test_sources_that_give_nothing_cost_nothing_that_was_done(tiny_encoder: Encoder, tmp_path: Path) -> None:
    engine, records = EdgeEngine(tmp_path), documents(300)
    with pytest.raises(PowerCut):
        run(engine, tiny_encoder, until(records, 280), tmp_path)
    with pytest.raises(BuildError, match="no document to index"):
        run(engine, tiny_encoder, [], tmp_path)
    _, tally = run(engine, tiny_encoder, records, tmp_path)
    assert tally.resumed > WINDOW_DOCUMENTS - 10


def test_a_build_that_cannot_be_read_is_not_copied_from_and_blocks_nothing(
    tiny_encoder: Encoder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    engine, records = EdgeEngine(tmp_path), documents(30)
    broken, _ = run(engine, tiny_encoder, records, tmp_path)
    (tmp_path / "indexes" / INDEX / "builds" / broken.id / "shard/edge_config.json").write_text("{")
    ready, tally = run(engine, tiny_encoder, records, tmp_path)
    assert (tally.encoded, ready.unchanged) == (30, 0)
    assert f"nothing is copied from build {broken.id}" in caplog.text


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    stops=st.lists(st.integers(1, 599), max_size=3),
    kinds=st.lists(st.sampled_from(["good", "twice", "bad", "wordless"]), min_size=1, max_size=40),
)
def test_counts_add_up_whatever_comes_and_however_often_it_breaks_off(
    stops: list[int], kinds: list[str], tiny_encoder: Encoder, tmp_path_factory: pytest.TempPathFactory
) -> None:
    made: dict[str, Callable[[int], Document | BadRecord]] = {
        "good": lambda at: Document(f"g{at}", text="the old town"),
        "twice": lambda at: Document("twice", text="a horse and a cat"),
        "bad": lambda at: BAD,
        "wordless": lambda at: Document(f"w{at}", text="☃"),
    }
    records: list[Document | BadRecord] = [
        Document("first", text="water"),
        *(made[kind](at) for at, kind in enumerate(kinds * 15)),
    ]
    data = tmp_path_factory.mktemp("data")
    engine = EdgeEngine(data)
    for stop in stops:
        with pytest.raises(PowerCut):
            run(engine, tiny_encoder, until(records, stop), data, max_bad=10_000)
    ready, tally = run(engine, tiny_encoder, records, data, max_bad=10_000)
    assert ready.read == len(records) == ready.documents + ready.dead
    assert tally.encoded + tally.resumed == ready.documents == len(points_of(engine, ready))
    assert ready.documents == 1 + 15 * kinds.count("good") + ("twice" in kinds)


def test_a_store_that_is_away_for_a_while_is_waited_for(
    tiny_encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from indexer import edge_store

    engine, failures, pauses = EdgeEngine(tmp_path), iter([True, True, False, True]), list[float]()
    upsert = edge_store.EdgeStore.upsert

    def away(self: edge_store.EdgeStore, points: list[Point]) -> None:
        if next(failures, False):
            raise StoreUnavailable("Qdrant does not answer.")
        upsert(self, points)

    monkeypatch.setattr(edge_store.EdgeStore, "upsert", away)
    monkeypatch.setattr(time, "sleep", pauses.append)
    ready, _ = run(engine, tiny_encoder, documents(300), tmp_path)
    assert ready.documents == 294
    assert pauses == [0.5, 1, 0.5]
    assert "Qdrant does not answer. Trying again in 1 s." in caplog.text
    failures = iter([True] * 100)
    with pytest.raises(StoreUnavailable):
        run(engine, tiny_encoder, documents(10, seed=1), tmp_path, reuse=False, patience_s=20, source="x")
    assert engine.builds(INDEX)[0].state == "failed"
    assert pauses[3:] == [0.5, 1, 2, 4, 8], "as long as it may be, and not once more on the way out"


def test_two_processes_do_not_make_one_build(tiny_encoder: Encoder, tmp_path: Path) -> None:
    path = ledger_path(tmp_path, INDEX, "b")
    with Ledger(path, "plan"), pytest.raises(BuildLocked, match="Build b is being made by another process"):
        Ledger(path, "plan")
    with pytest.raises(StoreError, match="other sources or options; give --restart"):
        Ledger(path, "another plan")


def test_a_nearly_full_disk_stops_a_build_before_it_does_harm(tmp_path: Path) -> None:
    with (
        Ledger(ledger_path(tmp_path, INDEX, "b"), "plan") as ledger,
        pytest.raises(StoreError, match=r"MiB left, and a build stops at .*make room, and give the same command again"),
    ):
        ledger.check_room(2**62)


def test_encoders_in_processes_of_their_own_give_the_same_build(
    tiny_artifact: Artifact, tiny_encoder: Encoder, tmp_path: Path
) -> None:
    engine, records = EdgeEngine(tmp_path), documents(700)
    here, _ = run(engine, tiny_encoder, records, tmp_path, reuse=False)
    options = BuildOptions(index=INDEX, data=tmp_path, reuse=False, source="apart")
    apart = build_index(
        engine,
        tiny_encoder,
        records,
        options,
        encoding=encoding_apart(IndexSettings(threads=2), tiny_artifact, Chunking(), 2),
    )
    for one, two in zip(points_of(engine, here), points_of(engine, apart), strict=True):
        assert (one.id, one.payload) == (two.id, two.payload)


ENCODE = """
import sys, time
from pathlib import Path
from indexer.encoders import encoding_apart
from indexer.settings import IndexSettings
from indexer.store import Chunking
from model.artifact import Artifact
from tests.indexer.test_resume import documents
if __name__ == "__main__":
    with encoding_apart(IndexSettings(), Artifact.open(Path(sys.argv[1])), Chunking(), 2) as encoders:
        encoders.result(encoders.begin(documents(4)))
        encoders.result(encoders.begin(documents(4)))
        import multiprocessing
        print(*(child.pid for child in multiprocessing.active_children()), flush=True)
        time.sleep(600)
"""


def test_encoders_end_with_a_parent_that_is_killed(tiny_artifact: Artifact, tmp_path: Path) -> None:
    script = tmp_path / "encode.py"
    script.write_text(ENCODE)
    command = [sys.executable, str(script), str(tiny_artifact.path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert process.stdout
    children = [int(pid) for pid in process.stdout.readline().split()]
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert children
    for child in children:
        wait_until_gone(child)


def wait_until_gone(pid: int) -> None:
    for _ in range(200):
        try:
            if Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z":
                return
        except (FileNotFoundError, ProcessLookupError):
            return
        time.sleep(0.05)
    pytest.fail(f"process {pid} is still there")


BUILD = """
import sys
from pathlib import Path
from indexer.build import BuildOptions, build_index
from indexer.edge import EdgeEngine
from indexer import edge, edge_store, filling
from model.artifact import Artifact
from model.encoder import Encoder
from tests.indexer.test_resume import INDEX, documents
filling.FLUSH_S = 0.02
artifact, data = map(Path, sys.argv[1:3])
if part_points := int(sys.argv[3]):
    edge.INDEXING_THRESHOLD_KB = edge_store.INDEXING_THRESHOLD_KB = 1
    edge_store.PART_POINTS = part_points
encoder = Encoder(Artifact.open(artifact), threads=1)
options = BuildOptions(index=INDEX, data=data, reuse=False, max_bad=200)
ready = build_index(EdgeEngine(data), encoder, documents(6000), options)
print(ready.id)
"""


@pytest.mark.slow
@pytest.mark.parametrize("part_points", [0, 900], ids=["whole", "in parts"])
def test_a_process_that_is_killed_again_and_again_ends_with_the_same_index(
    tiny_encoder: Encoder, tiny_artifact: Artifact, tmp_path: Path, part_points: int
) -> None:
    data, rng, kills = tmp_path / "killed", random.Random(5), 0
    published, _ = run(EdgeEngine(data), tiny_encoder, documents(50), data, source="published before")
    EdgeEngine(data).publish(published)
    before = points_of(EdgeEngine(data), published)
    began = time.monotonic()
    while True:
        command = [sys.executable, "-c", BUILD, str(tiny_artifact.path), str(data), str(part_points)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            printed, _ = process.communicate(timeout=1.0 + 1.5 * rng.random() if kills < 12 else None)
            break
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            kills += 1
    assert process.returncode == 0
    assert kills >= 3, (kills, time.monotonic() - began)
    engine = EdgeEngine(data)
    [ready, _] = engine.builds(INDEX)
    assert (ready.id, ready.state, ready.documents) == (printed.strip(), "ready", 5880)
    assert engine.published(INDEX) == published
    with closing(engine.open(INDEX, ready.id)) as store:
        assert (store.condition().segments > 2) == bool(part_points)
    assert_same_points(points_of(engine, published), before)
    unbroken, _ = run(EdgeEngine(tmp_path), tiny_encoder, documents(6000), tmp_path, max_bad=200)
    assert_same_points(points_of(engine, ready), points_of(EdgeEngine(tmp_path), unbroken))
