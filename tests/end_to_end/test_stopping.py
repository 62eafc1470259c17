"""A service that is told to stop while it is busy: the process itself, over real sockets."""

import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import httpx
import pytest

from indexer.build import BuildOptions, build_index
from indexer.catalog import keep_artifact
from indexer.documents import Document
from model.artifact import Artifact
from model.encoder import Encoder
from service.settings import Settings
from tests.end_to_end.conftest import Service
from tests.service.qdrant_server import qdrant_server

Start = Callable[..., AbstractContextManager[Service]]

CALLERS = 4


def test_under_load_readiness_ends_first_and_no_request_fails(start: Start, index: str) -> None:
    """Callers do as a balancer does: a replica that is not ready gets no new request."""
    answered, told = threading.Semaphore(0), threading.Event()

    def call(address: str) -> list[int]:
        statuses: list[int] = []
        with httpx.Client(base_url=address, timeout=30) as client:
            while not told.is_set():
                query = {"query": f"the king {len(statuses)}"}
                statuses.append(client.post("/v1/search", json=query).status_code)
                answered.release()
        return statuses

    with start(DUPMAE_DRAIN_LEAD_S="60") as service, ThreadPoolExecutor(CALLERS) as pool:
        calls = [pool.submit(call, service.address) for _ in range(CALLERS)]
        for _ in range(2 * CALLERS):
            assert answered.acquire(timeout=60)
        service.process.send_signal(signal.SIGTERM)
        with httpx.Client(base_url=service.address, timeout=30) as watcher:
            while (ready := watcher.get("/readyz")).status_code == 200:
                pass
            live = watcher.get("/livez")
        for _ in range(2 * CALLERS):  # it says that it stops, and answers on
            assert answered.acquire(timeout=60)
        told.set()
        statuses = [status for each in calls for status in each.result()]
        service.process.send_signal(signal.SIGTERM)
        service.ended(timeout=30)
    assert ready.status_code == 503
    assert "about to stop" in ready.json()["detail"]
    assert ready.headers["Connection"] == live.headers["Connection"] == "close"
    assert live.status_code == 200
    assert set(statuses) == {200}
    assert service.process.returncode == -signal.SIGTERM  # the second signal did not wait for the lead to end


def test_requests_that_have_begun_are_answered_before_the_process_ends(start: Start, index: str) -> None:
    with start(DUPMAE_DRAIN_LEAD_S="0") as service, ThreadPoolExecutor(16) as pool, ExitStack() as opened:
        address = f"{service.address}/v1/search"
        clients = [opened.enter_context(httpx.Client(timeout=30)) for _ in range(16)]
        for client in clients:
            assert client.get(f"{service.address}/livez").status_code == 200  # the connection stands
        calls = [
            pool.submit(client.post, address, json={"query": f"the queen {number}", "limit": 4})
            for number, client in enumerate(clients)
        ]
        next(iter(calls)).result()  # the others are under way
        service.process.send_signal(signal.SIGTERM)
        statuses = {call.result().status_code for call in calls}
        errors = service.ended(timeout=60)
    assert statuses == {200}
    assert service.process.returncode == 0
    assert "Traceback" not in errors


@pytest.mark.filterwarnings("ignore:Payload indexes have no effect:UserWarning")
def test_a_store_that_hangs_does_not_keep_the_process_alive(
    start: Start, tiny_artifact: Artifact, tiny_encoder: Encoder, tmp_path: Path
) -> None:
    keep_artifact(Settings(data=tmp_path), tiny_artifact)
    with qdrant_server() as server, ThreadPoolExecutor() as callers:
        documents = [Document("one", text="the king of the island")]
        build = build_index(server.engine, tiny_encoder, documents, BuildOptions(index="default"))
        server.engine.publish(build)
        changes = {"DATA": str(tmp_path), "QDRANT_URL": server.url, "DRAIN_LEAD_S": "0", "DRAIN_S": "0"}
        with start(**{f"DUPMAE_{name}": value for name, value in changes.items()}) as service:
            server.breaks("hangs", only=f"/collections/default--{build.id}/points/query")
            while server.hanging.acquire(blocking=False):
                pass
            caller = callers.submit(httpx.post, f"{service.address}/v1/search", json={"query": "king"}, timeout=30)
            assert server.hanging.acquire(timeout=30)
            service.process.send_signal(signal.SIGTERM)
            errors = service.ended(timeout=25)
            server.mends()
        assert isinstance(caller.exception() or caller.result().status_code, httpx.TransportError | int)
    assert service.process.returncode == 1, errors
    assert "not everything ended in time; raise DUPMAE_DRAIN_S" in errors
