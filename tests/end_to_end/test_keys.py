"""Keys over a real socket: made by the command, taken up by the service that runs, in no line that it writes."""

import signal
import socket
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from pathlib import Path

import httpx

from tests.end_to_end.conftest import Dupmae, Service

Start = Callable[..., AbstractContextManager[Service]]


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        return int(listener.getsockname()[1])


def status_in_time(client: httpx.Client, wanted: int) -> int:
    """The status of a search, once it is the wanted one or ten seconds have passed."""
    until = time.monotonic() + 10
    while True:
        status = client.post("/v1/search", json={"query": "the king"}).status_code
        if status == wanted or time.monotonic() > until:
            return status
        time.sleep(0.05)


def test_a_running_service_follows_the_keys_and_writes_none_of_them(
    start: Start, dupmae: Dupmae, index: str, tmp_path: Path
) -> None:
    keys, port = str(tmp_path / "keys.json"), free_port()
    with (
        start(DUPMAE_KEYS=keys, DUPMAE_METRICS_PORT=str(port)) as service,
        httpx.Client(base_url=service.address, timeout=30) as client,
    ):
        assert status_in_time(client, 200) == 200, "open on loopback as long as there are no keys"
        secret = dupmae("key", "create", "site", DUPMAE_KEYS=keys).stdout.strip()
        assert status_in_time(client, 401) == 401
        client.headers["Authorization"] = f"Bearer {secret}"
        assert client.post("/v1/search", json={"query": secret}).status_code == 200
        assert client.get(f"/v1/documents/{secret}").status_code == 404
        assert client.get("/livez", headers={"X": "y" * 100_000}).status_code in {400, 431}
        assert client.get("/metrics").status_code == 404
        assert "dupmae_build_info" in httpx.get(f"http://127.0.0.1:{port}/metrics").text
        assert dupmae("key", "revoke", "site", DUPMAE_KEYS=keys).returncode == 0
        assert status_in_time(client, 401) == 401
        service.process.send_signal(signal.SIGTERM)
        written = service.ended(timeout=30)
    assert '"key": "site"' in written
    assert secret not in written
    assert "/v1/documents/dupmae_***" in written


def test_an_address_that_others_can_reach_is_refused_in_one_line(dupmae: Dupmae, index: str, tmp_path: Path) -> None:
    refused = dupmae("serve", "--port", "0", DUPMAE_HOST="0.0.0.0", DUPMAE_KEYS=str(tmp_path / "keys.json"))
    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1
    assert "dupmae key create NAME" in refused.stderr
