"""A Qdrant server that is away, slow or unwilling is an error that says so."""

import http.server
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime

import pytest
from qdrant_client import QdrantClient, models

from indexer.qdrant import QdrantEngine, connect
from indexer.qdrant_store import QdrantStore, address
from indexer.store import Build, IndexNotFound, StoreError, StoreUnavailable
from tests.indexer.brute_force import new_build


@contextmanager
def server_that_replies(status: int, reply: bytes = b"{}") -> Iterator[str]:
    class Reply(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Retry-After", "7")
            self.send_header("Content-Length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply)

        def log_message(self, *_: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Reply)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_nobody_at_the_address_means_unavailable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(
        StoreUnavailable, match=rf"Qdrant at http://127.0.0.1:{port} does not answer .*DUPMAE_QDRANT_URL"
    ):
        connect(f"http://127.0.0.1:{port}")


def test_no_answer_in_time_means_unavailable() -> None:
    silent = socket.create_server(("127.0.0.1", 0))
    with silent, pytest.raises(StoreUnavailable, match=r"does not answer .*timed out"):
        connect(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout_s=1)


@pytest.mark.parametrize(
    ("status", "error", "message"),
    [
        (500, StoreUnavailable, "replied 500: .*; try again"),
        (503, StoreUnavailable, "replied 503"),
        (429, StoreUnavailable, "overloaded; try again in 7 s"),
        (401, StoreError, "replied 401: .*set DUPMAE_QDRANT_API_KEY"),
        (403, StoreError, "DUPMAE_QDRANT_API_KEY"),
        (404, IndexNotFound, "replied 404"),
        (418, StoreError, "replied 418"),
    ],
)
def test_each_reply_has_its_error(status: int, error: type[StoreError], message: str) -> None:
    with server_that_replies(status) as url, pytest.raises(error, match=message) as raised:
        connect(url)
    assert type(raised.value) is error


@pytest.mark.filterwarnings("ignore:Api key is used with an insecure connection:UserWarning")
def test_no_message_tells_a_secret() -> None:
    with server_that_replies(500) as url, pytest.raises(StoreUnavailable) as raised:
        connect(url.replace("http://", "http://gull:hunter2@") + "/path?api-key=s3cret", "hush")
    assert not [secret for secret in ("hunter2", "s3cret", "hush") if secret in str(raised.value)]
    assert "/path replied 500" in str(raised.value)


def test_local_mode_has_an_address_too() -> None:
    engine = QdrantEngine(client := QdrantClient(":memory:"))
    assert address(client) == ":memory:"
    engine.close()


@pytest.mark.filterwarnings("ignore:Payload indexes have no effect:UserWarning")
def test_an_alias_that_somebody_else_made_is_not_taken_over() -> None:
    client = QdrantClient(":memory:")
    client.create_collection("theirs", vectors_config={})
    alias = models.CreateAlias(collection_name="theirs", alias_name="default")
    client.update_collection_aliases([models.CreateAliasOperation(create_alias=alias)])
    build = Build(id="b", index="default", fingerprint="f", dense_dim=4, created=datetime.now(UTC), state="ready")
    with closing(QdrantEngine(client)) as engine:
        engine.create(build)
        with pytest.raises(StoreError, match="leads to theirs"):
            engine.publish(build)
        assert [(found.alias_name, found.collection_name) for found in client.get_aliases().aliases] == [
            ("default", "theirs")
        ]


@pytest.mark.parametrize(("status", "optimized"), [("green", True), ("yellow", False), ("grey", False), ("red", False)])
def test_only_a_green_collection_has_nothing_left_to_build(status: str, optimized: bool) -> None:
    with closing(QdrantClient(":memory:")) as local:
        local.create_collection("c", vectors_config=models.VectorParams(size=4, distance=models.Distance.DOT))
        info = local.get_collection("c")
    indexed = models.PayloadIndexInfo(data_type=models.PayloadSchemaType.KEYWORD, points=3)
    info = info.model_copy(update={"status": models.CollectionStatus(status), "payload_schema": {"doc_id": indexed}})
    reply = f'{{"result": {info.model_dump_json()}, "status": "ok", "time": 0}}'
    with (
        server_that_replies(200, reply.encode()) as url,
        closing(QdrantClient(url=url, check_compatibility=False)) as client,
    ):
        condition = QdrantStore(new_build("b1"), client, "c", write=False).condition()
    assert (condition.optimized, condition.detail, condition.fields) == (optimized, status, frozenset({"doc_id"}))
    assert (condition.segments, condition.size_bytes) == (info.segments_count, None)
