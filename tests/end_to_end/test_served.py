"""The service over a real socket, as a process that signals stop."""

import signal
from collections.abc import Callable
from contextlib import AbstractContextManager

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


def test_a_port_that_is_taken_is_one_line(start: Start, dupmae: Dupmae, index: str) -> None:
    with start() as service:
        port = service.address.rpartition(":")[2]
        attempts = [dupmae("serve", "--port", port), dupmae("demo", "--port", port)]
    for failed in attempts:
        assert failed.returncode == 1
        assert f"cannot listen on 127.0.0.1:{port}" in failed.stderr
        assert failed.stderr.count("\n") == 1
