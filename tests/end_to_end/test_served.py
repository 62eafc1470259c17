"""The service over a real socket, as a process that signals stop."""

import os
import re
import signal
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import httpx
import pytest

from tests.end_to_end.conftest import Dupmae, Service

Start = Callable[..., AbstractContextManager[Service]]


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_the_service_answers_and_a_signal_stops_it_cleanly(start: Start, index: str, stop: signal.Signals) -> None:
    with start() as service:
        assert httpx.get(f"{service.address}/readyz").status_code == 200
        answer = httpx.post(f"{service.address}/v1/search", json={"query": "compress a file"}).json()
        assert len(answer["results"]) == 4
        service.process.send_signal(stop)
        errors = service.ended(timeout=30)
    assert service.process.returncode == 0
    assert "Traceback" not in errors


def test_a_caller_who_is_still_sending_a_body_that_is_too_large_gets_the_answer(start: Start, index: str) -> None:
    with start() as service:
        declared = httpx.post(f"{service.address}/v1/search", json={"query": "x" * 2**24}, timeout=30)
        chunked = httpx.post(f"{service.address}/v1/search", content=(b" " * 2**16 for _ in range(256)), timeout=30)
    assert declared.status_code == chunked.status_code == 413
    assert declared.json()["type"] == chunked.json()["type"] == "urn:dupmae:too-large"


COUNTING = """
import atexit, gc, sys

seen = []
gc.callbacks.append(lambda phase, info: seen.append(phase) if phase == "stop" and gc.get_freeze_count() else None)
atexit.register(lambda: print(len(seen), "collections", file=sys.stderr))
"""


def test_a_busy_service_seldom_stands_still_to_look_for_garbage(start: Start, index: str, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(COUNTING)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    with start(PYTHONPATH=path, DUPMAE_CACHE_MB="0") as service, httpx.Client() as client:
        for number in range(150):
            assert client.post(f"{service.address}/v1/search", json={"query": f"a file {number}"}).status_code == 200
        service.process.send_signal(signal.SIGTERM)
        errors = service.ended(timeout=30)
    counted = re.search(r"(\d+) collections", errors)
    assert counted, errors
    assert int(counted[1]) <= 3, "by Python's own numbers they are 14"


def test_a_port_that_is_taken_is_one_line(start: Start, dupmae: Dupmae, index: str) -> None:
    with start() as service:
        port = service.address.rpartition(":")[2]
        attempts = [dupmae("serve", "--port", port), dupmae("demo", "--port", port)]
    for failed in attempts:
        assert failed.returncode == 1
        assert f"cannot listen on 127.0.0.1:{port}" in failed.stderr
        assert failed.stderr.count("\n") == 1
