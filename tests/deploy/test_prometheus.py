"""The real Prometheus reads a service that runs, and each query of its dashboard has an answer."""

import json
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from fastapi.testclient import TestClient

from deploy.grafana.draw import FOLDER
from service.app import create_app
from service.searcher import open_searchers
from service.settings import Settings
from tests.service.conftest import data as data

pytestmark = pytest.mark.prometheus

LONGEST_WAIT_S = 60
SEARCHES = [{"query": "king"}, {"query": "king"}, {"query": "sea", "mode": "ot"}, {"query": ""}]


@contextmanager
def prometheus(folder: Path, scraped: int) -> Iterator[httpx.Client]:
    """A server that scrapes this port every half second, under the name that dashboards and alerts know."""
    job = {"job_name": "dupmae", "static_configs": [{"targets": [f"127.0.0.1:{scraped}"]}]}
    configuration = {"global": {"scrape_interval": "500ms"}, "scrape_configs": [job]}
    (folder / "prometheus.yml").write_text(json.dumps(configuration))
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([*command, f"--web.listen-address={address}"], stdout=log, stderr=log)
    try:
        with httpx.Client(base_url=f"http://{address}/api/v1", timeout=10) as client:
            yield client
    finally:
        process.terminate()
        process.wait()


def has_data(client: httpx.Client, query: str) -> bool:
    try:
        answer = client.get("/query", params={"query": query}).json()
    except httpx.TransportError:  # it starts
        return False
    return bool(answer.get("data", {}).get("result"))


def test_each_query_of_the_service_dashboard_has_data(data: Path, tmp_path: Path) -> None:
    settings = Settings(data=data, threads=1)
    panels = json.loads((FOLDER / "service.json").read_text())["panels"]
    missing = [target["expr"] for panel in panels for target in panel.get("targets", [])]
    with TestClient(app := create_app(lambda: open_searchers(settings), settings)) as service:
        server, _ = app.state.metrics.serve("127.0.0.1", 0)
        with prometheus(tmp_path, server.server_port) as client:
            until = time.monotonic() + LONGEST_WAIT_S
            while missing and time.monotonic() < until:
                for search in SEARCHES:
                    service.post("/v1/search", json=search)
                missing = [each for each in missing if not has_data(client, each.replace("$__rate_interval", "1m"))]
        server.shutdown()
        server.server_close()
    assert not missing
