"""The journal of live writes: one contract over every engine, what a crash leaves of it, and its way into a build."""

import math
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import qdrant_edge as edge
from pydantic import JsonValue
from qdrant_client import QdrantClient

from indexer.checks import MAX_DEPTH
from indexer.chunking import Chunker
from indexer.documents import Document
from indexer.edge import EdgeEngine
from indexer.edge_journal import EdgeJournal
from indexer.edge_requests import edge_filter, sparse_vector
from indexer.edge_store import naming
from indexer.encoding import encode_passages
from indexer.filters import parse_filter
from indexer.journal import Write
from indexer.live import LiveBuild, stored_document
from indexer.points import point_id
from indexer.qdrant import QdrantEngine
from indexer.qdrant_journal import QdrantJournal
from indexer.replay import replay
from indexer.store import Build, Engine, Point, Store, StoreError
from model.encoder import Encoder
from tests.indexer.brute_force import assert_equal_points, nested, new_build, random_points
from tests.indexer.conftest import ENGINES

GULL = Document(
    "gull/1", "Gulls", "They nest\non cliffs. Möwe \u2028", "https://x.test/g", {"lang": "de", "tags": [1, None]}
)

APPEND = """
import os, signal, sys
from pathlib import Path
from typing import Any
from indexer.edge import EdgeEngine
from indexer.edge_journal import EdgeJournal
from indexer.journal import Write

journal = EdgeJournal(Path(sys.argv[1]))
for number in range(20):
    journal.append([Write.delete(f"{sys.argv[2]}-{number}")])
os.kill(os.getpid(), signal.SIGKILL)
"""


def ids(journal: Iterable[tuple[int, Write]]) -> list[tuple[int, str]]:
    return [(position, write.document_id) for position, write in journal]


def test_writes_come_back_whole_in_their_order_from_any_position(engine: Engine) -> None:
    journal = engine.journal("test-birds")
    assert (journal.position(), list(journal.since(0))) == (0, [])
    assert journal.append([Write.put(GULL), Write.delete("hawk")]) == 2
    assert journal.append([Write.put(Document("tern"))]) == 3
    assert list(journal.since(0)) == [(1, Write.put(GULL)), (2, Write.delete("hawk")), (3, Write.put(Document("tern")))]
    assert ids(journal.since(2)) == [(3, "tern")]
    assert ids(journal.since(1)) == [(2, "hawk"), (3, "tern")]
    assert list(journal.since(3)) == []
    again = engine.journal("test-birds")
    assert (again.position(), ids(again.since(2))) == (3, [(3, "tern")])
    assert engine.journal("test-fish").position() == 0


def test_a_journal_is_no_build_and_no_build_takes_its_name(engine: Engine) -> None:
    engine.journal("test-birds").append([Write.delete("gull")])
    assert (engine.builds("test-birds"), engine.indexes()) == ([], [])
    facts = Build(id="journal", index="test-birds", fingerprint="f", dense_dim=16, created=datetime.now(UTC))
    with pytest.raises(StoreError, match="'journal' is not allowed"):
        engine.create(facts)


@pytest.mark.parametrize("engine", [ENGINES[0], ENGINES[2]], indirect=True)  # the local client is for one thread
def test_writers_at_the_same_time_lose_nothing_and_keep_their_order(engine: Engine) -> None:
    def write(name: str) -> None:
        journal = engine.journal("test-birds")
        for number in range(15):
            journal.append([Write.delete(f"{name}-{number}")])

    engine.journal("test-birds").append([Write.delete("first")])
    threads = [threading.Thread(target=write, args=name) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = ids(engine.journal("test-birds").since(1))
    assert [position for position, _ in found] == list(range(2, 47))
    for name in "abc":
        assert [id for _, id in found if id.startswith(name)] == [f"{name}-{number}" for number in range(15)]


@pytest.mark.filterwarnings("ignore:Payload indexes have no effect:UserWarning")
def test_of_two_replicas_that_take_one_position_the_later_takes_the_next() -> None:
    class Raced(QdrantClient):
        """Another replica appends between this one's look at the end and its own append."""

        rivals: Iterator[str] = iter(["rival-1", "rival-2"])

        def upsert(self, *args: Any, **kwargs: Any) -> Any:
            if rival := next(self.rivals, None):
                QdrantJournal(self, "birds--journal").append([Write.delete(rival)])
            return super().upsert(*args, **kwargs)

    with closing(Raced(":memory:")) as client:
        journal = QdrantJournal(client, "birds--journal")
        assert journal.append([Write.delete("mine")]) == 3
        assert journal.append([Write.delete("mine too")]) == 4
        assert [id for _, id in ids(journal.since(0))] == ["rival-2", "rival-1", "mine", "mine too"]


@pytest.mark.filterwarnings("ignore:Payload indexes have no effect:UserWarning")
def test_a_number_that_comes_back_as_its_neighbour_is_still_the_write_that_was_made() -> None:
    class Rounding(QdrantClient):
        """Reads one number a little off, and does not take a write for ever."""

        left = 2

        def upsert(self, *args: Any, **kwargs: Any) -> Any:
            self.left -= 1
            assert self.left >= 0, "the same write is appended again and again"
            return super().upsert(*args, **kwargs)

        def retrieve(self, *args: Any, **kwargs: Any) -> Any:
            (record,) = super().retrieve(*args, **kwargs)
            metadata = record.payload["write"]["put"]["metadata"]  # type: ignore[index]  # a write has a payload
            metadata["price"] = math.nextafter(metadata["price"], 1)
            return [record]

    with closing(Rounding(":memory:")) as client:
        journal = QdrantJournal(client, "birds--journal")
        assert journal.append([Write.put(Document("gull", metadata={"price": 0.1}))]) == 1
        assert journal.append([Write.put(Document("tern", metadata={"price": 0.2}))]) == 2


def test_processes_that_are_killed_after_their_writes_leave_every_one_of_them(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    command = [sys.executable, "-c", APPEND, str(path)]
    processes = [subprocess.Popen([*command, name]) for name in ("one", "two")]
    assert [process.wait() for process in processes] == [-signal.SIGKILL] * 2
    found = ids(EdgeJournal(path).since(0))
    assert [position for position, _ in found] == list(range(1, 41))
    assert {id for _, id in found} == {f"{name}-{number}" for name in ("one", "two") for number in range(20)}


@pytest.mark.parametrize("torn", [b"0", b"3f1c09aa 61 {", b"\0" * 70_000, b"3f1c09aa 2 {}\n", b"\xff\n\n"])
def test_a_torn_last_line_is_no_write_and_the_next_writer_cuts_it_off(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "journal.jsonl"
    EdgeJournal(path).append([Write.put(GULL), Write.delete("hawk")])
    whole = path.read_bytes()
    path.write_bytes(whole + torn)
    journal = EdgeJournal(path)
    assert (journal.position(), ids(journal.since(0))) == (2, [(1, "gull/1"), (2, "hawk")])
    assert journal.append([Write.delete("tern")]) == 3
    assert ids(EdgeJournal(path).since(0)) == [(1, "gull/1"), (2, "hawk"), (3, "tern")]
    assert path.read_bytes().startswith(whole)


def test_a_line_longer_than_what_is_read_at_once_is_found(tmp_path: Path) -> None:
    journal = EdgeJournal(tmp_path / "journal.jsonl")
    journal.append([Write.put(Document("long", text="x" * 200_000)), Write.put(Document("longer", text="y" * 300_000))])
    assert journal.append([Write.delete("long")]) == 3


def test_damage_before_other_writes_is_an_error_that_names_the_place(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    EdgeJournal(path).append([Write.delete("gull"), Write.delete("hawk"), Write.delete("tern")])
    content = path.read_bytes()
    path.write_bytes(content.replace(b"hawk", b"hawl"))
    with pytest.raises(StoreError, match=rf"is damaged at byte {content.index(b'hawk') - 24}, before other writes"):
        list(EdgeJournal(path).since(0))


def documents(store: Store) -> dict[str, str]:
    return {str(point.payload["doc_id"]): str(point.payload["text"]) for point in store.scroll()}


def new_store(engine: Engine, encoder: Encoder, held: list[Document], id: str = "one") -> Store:
    dim = encoder.artifact.manifest.dense_dim
    now = datetime.now(UTC)
    build = Build(id=id, index="test-birds", fingerprint=encoder.fingerprint, dense_dim=dim, created=now)
    store = engine.create(build)
    encoded = encode_passages(Chunker(encoder, build.chunking), held)
    store.upsert([point for document in encoded.documents for point in document.points])
    store.flush()
    return store


def test_replaying_stores_the_last_write_of_each_document_and_again_changes_nothing(
    engine: Engine, tiny_encoder: Encoder
) -> None:
    store = new_store(engine, tiny_encoder, [Document(id, text="the old king") for id in ("kept", "gone", "changed")])
    journal = engine.journal("test-birds")
    journal.append([Write.delete("kept"), Write.put(Document("kept", text="the king"))])
    journal.append([Write.put(Document("gone", text="a dog")), Write.delete("gone"), Write.delete("never was")])
    journal.append([Write.put(Document("changed", text=f"the horse {number}")) for number in range(70)])
    expected = {"kept": "the king", "changed": "the horse 69"}
    with closing(store):
        for since in (0, 0, 75):
            assert replay(store, Chunker(tiny_encoder, store.build.chunking), journal, since) == 75
            assert documents(store) == expected
            assert (store.count(), store.count_documents()) == (2, 2)


def test_what_another_build_of_these_vectors_holds_is_copied_and_only_what_changed_is_encoded(
    engine: Engine, tiny_encoder: Encoder
) -> None:
    written = [Document("kept", text="the king"), Document("changed", text="the queen")]
    journal = engine.journal("test-birds")
    journal.append([Write.put(document) for document in written])
    base, store = (new_store(engine, tiny_encoder, [], id) for id in ("base", "new"))
    chunker = Chunker(tiny_encoder, store.build.chunking)
    with closing(base), closing(store):
        replay(base, chunker, journal, 0)
        (right,), (other,) = (base.get([point_id(document.id)]) for document in written)
        base.upsert([Point(right.id, other.vector, right.payload)])  # a vector that only copying can bring
        journal.append([Write.put(Document("changed", text="the horse"))])
        assert replay(store, chunker, journal, 0, base) == 3
        assert documents(store) == {"kept": "the king", "changed": "the horse"}
        (copied,) = store.get([right.id])
        assert_equal_points(copied, Point(right.id, other.vector, right.payload))


def test_a_document_of_several_passages_goes_as_a_whole(engine: Engine, tiny_encoder: Encoder) -> None:
    store = new_store(engine, tiny_encoder, [Document("long", text="the king")])
    (first,) = store.get([point_id("long")])
    texts = ["the king and", "king and the", "the queen"]
    payloads = [first.payload | {"chunk": n, "chunks": 3, "start": 9 * n, "text": text} for n, text in enumerate(texts)]
    passages = [Point(point_id("long", n), first.vector, payload) for n, payload in enumerate(payloads)]
    with closing(store):
        for write, left in ((Write.put(Document("long", text="a cat")), 1), (Write.delete("long"), 0)):
            store.upsert(passages)
            assert stored_document(store, "long") == Document("long", text="the king king and the queen")
            assert (store.count(), store.count_documents()) == (3, 1)
            position = engine.journal("test-birds").append([write])
            replay(store, Chunker(tiny_encoder, store.build.chunking), engine.journal("test-birds"), position - 1)
            assert store.count() == left


def test_a_document_that_the_model_cannot_encode_is_taken_out_and_logged(
    engine: Engine, tiny_encoder: Encoder, caplog: pytest.LogCaptureFixture
) -> None:
    store = new_store(engine, tiny_encoder, [Document(id, text="the king") for id in ("a", "b")])
    journal = engine.journal("test-birds")
    journal.append([Write.put(Document("a", text="ééé \u200b")), Write.put(Document("b", text="the queen"))])
    journal.append([Write.put(Document("a", text="\u200b"))])
    with closing(store):
        replay(store, Chunker(tiny_encoder, store.build.chunking), journal, 0)
        assert documents(store) == {"b": "the queen"}
    assert "document 'a' is not in this build: no word in it" in caplog.text


@pytest.mark.parametrize(
    ("value", "reason"),
    [(nested(MAX_DEPTH), f"has metadata nested more than {MAX_DEPTH} deep"), (float("nan"), "is not JSON")],
    ids=["nested", "NaN"],
)
def test_what_no_engine_can_hold_is_refused_before_it_is_in_the_journal(
    engine: Engine, tiny_encoder: Encoder, value: JsonValue, reason: str
) -> None:
    with closing(new_store(engine, tiny_encoder, [])) as store:
        with pytest.raises(StoreError, match=f"Document 'gull' .*{reason}"):
            LiveBuild(engine, store, tiny_encoder).put(Document("gull", text="the king", metadata={"value": value}))
        assert (engine.journal("test-birds").position(), store.count()) == (0, 0)


def test_a_document_that_the_store_refuses_is_taken_out_and_logged_and_the_others_are_stored(
    engine: Engine, tiny_encoder: Encoder, caplog: pytest.LogCaptureFixture
) -> None:
    store = new_store(engine, tiny_encoder, [Document(id, text="the king") for id in ("deep", "gone", "kept")])
    journal = engine.journal("test-birds")
    journal.append([Write.put(Document("deep", text="a dog", metadata=nested(200))), Write.delete("gone")])
    journal.append([Write.put(Document("new", text="the queen"))])
    with closing(store):
        assert replay(store, Chunker(tiny_encoder, store.build.chunking), journal, 0) == 3
        assert documents(store) == {"kept": "the king", "new": "the queen"}
    assert "document 'deep' is not in this build: Document 'deep' has metadata nested" in caplog.text


def test_a_store_that_fails_is_no_reason_to_leave_a_document_out(engine: Engine, tiny_encoder: Encoder) -> None:
    new_store(engine, tiny_encoder, []).close()
    journal = engine.journal("test-birds")
    journal.append([Write.put(GULL)])
    with closing(engine.open("test-birds", "one")) as reader, pytest.raises(StoreError, match="open for reading only"):
        replay(reader, Chunker(tiny_encoder, reader.build.chunking), journal, 0)


def test_a_panic_of_the_embedded_engine_is_an_error_that_names_the_build(tmp_path: Path) -> None:
    engine = EdgeEngine(tmp_path)
    engine.create(new_build("one")).close()
    (point,) = random_points(1, seed=1)
    shard = edge.EdgeShard.load(str(tmp_path / "indexes" / "test-birds" / "builds" / "one" / "shard"))
    vectors = {"cls": point.vector.cls.tolist(), "ot": sparse_vector(point.vector)}
    shard.update(edge.UpdateOperation.upsert_points([edge.Point(point.id, vectors, nested(200))]))
    unindexed = edge_filter(parse_filter({"must": [{"key": "kind", "match": {"value": 1}}]}, {"kind": "integer"}))
    with closing(shard), pytest.raises(StoreError, match="Build one of index"), naming(new_build("one")):
        shard.count(edge.CountRequest(filter=unindexed, exact=True))


def test_what_another_replica_wrote_is_in_the_build_before_the_next_write(
    engine: Engine, tiny_encoder: Encoder
) -> None:
    store = new_store(engine, tiny_encoder, [Document("gull", text="the king")])
    with closing(store):
        live = LiveBuild(engine, store, tiny_encoder)
        assert live.put(Document("gull", text="a dog")) == (1, True)
        engine.journal("test-birds").append([Write.put(Document("tern", text="a cat")), Write.delete("gull")])
        assert live.delete("gull") == (0, False)
        assert live.put(Document("hawk", text="a horse")) == (4, False)
        assert documents(store) == {"tern": "a cat", "hawk": "a horse"}
        assert (live.build.journal, live.build.documents, live.build.passages) == (4, 2, 2)
        live.save()
    (saved,) = engine.builds("test-birds")
    assert (saved.journal, saved.documents, saved.passages) == (4, 2, 2)


class Killed(Exception):
    """A replica is gone."""


class Late(QdrantClient):
    """Stores what the first replica writes only after another one has made a later write, and may be killed then."""

    other: LiveBuild | None = None
    killed = False

    def upsert(self, collection_name: str, *args: Any, **kwargs: Any) -> Any:
        if self.other is None or collection_name.endswith("--journal"):
            return super().upsert(collection_name, *args, **kwargs)
        other, self.other = self.other, None
        other.put(Document("gull", text="a horse"))
        other.save()
        result = super().upsert(collection_name, *args, **kwargs)
        if self.killed:
            raise Killed
        return result


@pytest.fixture
def late() -> Iterator[Late]:
    with closing(Late(":memory:")) as client:
        yield client


@pytest.mark.filterwarnings("ignore:Payload indexes have no effect:UserWarning")
def test_a_replica_that_stores_its_write_after_a_later_one_leaves_the_later_one(
    late: Late, tiny_encoder: Encoder
) -> None:
    engine = QdrantEngine(late)
    store = new_store(engine, tiny_encoder, [Document("gull", text="the king")])
    late.other = LiveBuild(engine, engine.open("test-birds", "one", write=True), tiny_encoder)
    live = LiveBuild(engine, store, tiny_encoder)
    assert live.put(Document("gull", text="a cat")) == (1, True)
    assert documents(store) == {"gull": "a horse"}
    assert live.build.journal == 2


@pytest.mark.filterwarnings("ignore:Payload indexes have no effect:UserWarning")
def test_what_a_replica_stored_too_late_before_it_was_killed_is_mended_by_who_opens_the_build(
    late: Late, tiny_encoder: Encoder
) -> None:
    engine = QdrantEngine(late)
    store = new_store(engine, tiny_encoder, [Document("gull", text="the king")])
    late.other = LiveBuild(engine, engine.open("test-birds", "one", write=True), tiny_encoder)
    late.killed = True
    with pytest.raises(Killed):
        LiveBuild(engine, store, tiny_encoder).put(Document("gull", text="a cat"))
    (facts,) = engine.builds("test-birds")
    assert (facts.journal, documents(store)) == (2, {"gull": "a cat"})
    LiveBuild(engine, engine.open("test-birds", "one", write=True), tiny_encoder).catch_up()
    assert documents(store) == {"gull": "a horse"}


@pytest.mark.filterwarnings("ignore:Payload indexes have no effect:UserWarning")
def test_a_build_that_was_deleted_while_it_was_open_is_an_error_that_says_so(tiny_encoder: Encoder) -> None:
    with closing(QdrantEngine(QdrantClient(":memory:"))) as engine:
        live = LiveBuild(engine, new_store(engine, tiny_encoder, []), tiny_encoder)
        live.put(Document("gull", text="a cat"))
        engine.drop(live.build)
        with pytest.raises(StoreError, match="Build one of index test-birds was deleted while it was open"):
            live.save()


def test_a_journal_that_lost_writes_is_an_error(tmp_path: Path, tiny_encoder: Encoder) -> None:
    engine = EdgeEngine(tmp_path)
    with closing(new_store(engine, tiny_encoder, [Document("gull", text="the king")])) as store:
        live = LiveBuild(engine, store, tiny_encoder)
        live.put(Document("tern", text="a dog"))
        (tmp_path / "indexes" / "test-birds" / "journal.jsonl").unlink()
        with pytest.raises(StoreError, match="ends at 0, but build one has read up to 1: writes are lost"):
            live.put(Document("hawk", text="a cat"))
