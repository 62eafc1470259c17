"""What the embedded client cannot show of a server: how large requests are, what is asked of it, and how it gets on."""

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import Any

import pytest
from qdrant_client import QdrantClient, models

from indexer.qdrant import QdrantEngine
from indexer.qdrant_store import QdrantStore
from indexer.store import StoreError
from tests.indexer.brute_force import new_build, random_points

TOO_LARGE = 32 * 2**20

pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect:UserWarning")


@contextmanager
def server_that_takes_32_mb() -> Iterator[tuple[str, list[Any]]]:
    """A server that acknowledges every write, and the bodies it was sent."""
    bodies: list[Any] = []

    class Reply(http.server.BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            body = self.rfile.read(size := int(self.headers["Content-Length"]))
            bodies.append(json.loads(body))
            reply = b'{"result": {"operation_id": 1, "status": "completed"}, "status": "ok", "time": 0}'
            self.send_response(200 if size <= TOO_LARGE else 413)
            self.send_header("Content-Length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply)

        def do_POST(self) -> None:
            self.do_PUT()

        def log_message(self, *_: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Reply)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", bodies
    server.shutdown()
    thread.join()
    server.server_close()


class Optimizing(QdrantClient):
    """A server whose optimizer has got so far each time it is asked."""

    def __init__(self, *progress: tuple[str, int]) -> None:
        super().__init__(":memory:")
        self.create_collection("c", vectors_config={})
        self.progress = list(progress)

    def get_collection(self, collection_name: str, **options: Any) -> models.CollectionInfo:
        status, indexed = self.progress.pop(0)
        found = {"status": models.CollectionStatus(status), "indexed_vectors_count": indexed}
        return super().get_collection(collection_name, **options).model_copy(update=found)


class Remembering(QdrantClient):
    """A server that says which payload indexes it has, and dies at one of them if it is told to."""

    def __init__(self, dies_at: str | None = None) -> None:
        super().__init__(":memory:")
        self.dies_at = dies_at
        self.asked: list[str] = []
        self.made: list[str] = []

    def create_payload_index(self, collection_name: str, field_name: str, *rest: Any, **options: Any) -> Any:
        if field_name == self.dies_at:
            raise KeyboardInterrupt
        self.made.append(field_name)
        return super().create_payload_index(collection_name, field_name, *rest, **options)

    def get_collection(self, collection_name: str, **options: Any) -> models.CollectionInfo:
        self.asked.append(collection_name)
        info = super().get_collection(collection_name, **options)
        schema = {
            name: models.PayloadIndexInfo(data_type=models.PayloadSchemaType.KEYWORD, points=0) for name in self.made
        }
        return info.model_copy(update={"payload_schema": schema})


@pytest.mark.parametrize("letter", ["x", "ü", '"', "\U0001f426"])
def test_no_request_is_larger_than_a_server_takes_and_every_point_is_sent_once(letter: str) -> None:
    text = letter * (3 * 2**20 // len(json.dumps(letter)))
    points = [replace(point, payload={"text": text}) for point in random_points(20, seed=1)]
    with (
        server_that_takes_32_mb() as (url, bodies),
        closing(QdrantClient(url=url, check_compatibility=False)) as client,
    ):
        QdrantStore(new_build("b1"), client, "c", write=True).upsert(points)
    assert 1 < len(bodies) < len(points)
    assert [point["id"] for body in bodies for point in body["points"]] == [point.id for point in points]


def test_many_points_are_deleted_a_thousand_at_a_time() -> None:
    ids = [point.id for point in random_points(2001, seed=1)]
    with (
        server_that_takes_32_mb() as (url, bodies),
        closing(QdrantClient(url=url, check_compatibility=False)) as client,
    ):
        QdrantStore(new_build("b1"), client, "c", write=True).delete(ids)
    assert [len(body["points"]) for body in bodies] == [1000, 1000, 1]
    assert [id for body in bodies for id in body["points"]] == ids


def test_an_optimizer_that_gets_on_is_waited_for_however_long_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("indexer.qdrant_store.POLL_S", 0)
    progress = [("yellow", 1), ("yellow", 2), ("yellow", 3), ("grey", 3), ("yellow", 3), ("green", 4)]
    with closing(Optimizing(*progress)) as client:
        QdrantStore(new_build("b1"), client, "c", write=True).optimize(patience_s=0)
        assert client.progress == []


def test_an_optimizer_that_stands_still_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("indexer.qdrant_store.POLL_S", 0)
    stuck = pytest.raises(StoreError, match="is yellow, with 7 vectors indexed, and got no further in 0 s")
    with closing(Optimizing(*[("yellow", 7)] * 5)) as client, stuck:
        QdrantStore(new_build("b1"), client, "c", write=True).optimize(patience_s=0)
    with closing(Optimizing(("red", 7))) as client, pytest.raises(StoreError, match="is red"):
        QdrantStore(new_build("b1"), client, "c", write=True).optimize()


def test_a_build_whose_creation_was_killed_gets_its_payload_indexes_when_it_is_written_to() -> None:
    client = Remembering(dies_at="parent_id")
    with closing(QdrantEngine(client)) as engine:
        with pytest.raises(KeyboardInterrupt):
            engine.create(build := new_build("b1", fields={"metadata.lang": "keyword"}))
        client.dies_at = None
        engine.open("test-birds", "b1")
        assert client.made == ["metadata.lang", "doc_id"]
        engine.open("test-birds", "b1", write=True)
        engine.open("test-birds", "b1", write=True)
        assert sorted(client.made) == sorted(build.indexed_fields)


def test_the_facts_of_one_build_are_read_from_its_own_collection_alone() -> None:
    client = Remembering()
    with closing(QdrantEngine(client)) as engine:
        for number in range(4):
            engine.create(new_build(f"b{number}"))
        client.asked.clear()
        engine.save(new_build("b1"))
    assert set(client.asked) == {"test-birds--b1"}
