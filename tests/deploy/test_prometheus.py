"""The real Prometheus and the real Alertmanager watch services and a build that run: each query of each dashboard has
an answer, and an alert comes to whoever is to receive it, and its end too."""

import json
import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from itertools import count
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple

import httpx
import pytest
from fastapi.testclient import TestClient

from deploy.grafana.draw import DASHBOARDS, FOLDER, QDRANT
from deploy.grafana.pictures import Period, curves
from deploy.local import alertmanager, free_address, prometheus
from indexer.build import BuildOptions, build_index
from indexer.catalog import keep_artifact, open_engine
from indexer.release import ReleaseOptions, release
from model.artifact import Artifact
from model.encoder import Encoder
from service.app import create_app
from service.searcher import open_searchers
from service.settings import Settings
from tests.indexer.collection import random_documents
from tests.receiver import receiver

pytestmark = [pytest.mark.prometheus, pytest.mark.alertmanager]

LONGEST_WAIT_S = 60
PROBE_S = 0.5
DOCUMENTS = random_documents(20)
SEARCHES = [{"query": "king"}, {"query": "sea", "mode": "ot"}, {"query": ""}]
FILES = sorted(FOLDER.glob("*.json"))

A_WEEK = "compares with a week ago"
WITHOUT_DATA = {
    f"sum by (index) (rate({name}_sum[1h] offset 1w)) / sum by (index) (rate({name}_count[1h] offset 1w))": A_WEEK
    for name in ("dupmae_query_tokens", "dupmae_query_terms", "dupmae_top_score", "dupmae_top_ot_share")
} | {
    query: "asks a Qdrant server"
    for rows in DASHBOARDS.values()
    for graphs in rows.values()
    for graph in graphs
    for query in graph.queries.values()
    if QDRANT in query
}
"""Queries that have no answer here, each with its reason. None needs a real incident."""

Message = dict[str, Any]


class Watched(NamedTuple):
    """What is watched, and by whom.

    Attributes:
        prometheus: A client of its API.
        alertmanager: A client of its API.
        messages: What Alertmanager has sent to each receiver.
        empty: A client of one whose index nobody has built yet.
        empty_instance: What Prometheus calls that one.
        fill: Builds and publishes its index.
    """

    prometheus: httpx.Client
    alertmanager: httpx.Client
    messages: dict[str, "SimpleQueue[Message]"]
    empty: TestClient
    empty_instance: str
    fill: Callable[[], None]


@contextmanager
def webhooks() -> Iterator[tuple[dict[str, str], dict[str, "SimpleQueue[Message]"]]]:
    """The address of each receiver, and what was sent there."""
    messages: dict[str, SimpleQueue[Message]] = {"page": SimpleQueue(), "ticket": SimpleQueue()}

    def take(path: str, body: bytes) -> None:
        messages[path[1:]].put(json.loads(body))

    with receiver(take) as address:
        yield {name: f"{address}/{name}" for name in messages}, messages


def build(artifact: Artifact, encoder: Encoder, settings: Settings) -> None:
    """Make the index of some settings, and publish it through the gate, which leaves the probe something to ask."""
    keep_artifact(settings, artifact)
    with closing(open_engine(settings)) as engine:
        made = build_index(engine, encoder, DOCUMENTS, BuildOptions(index=settings.index))
        release(engine, settings, made, ReleaseOptions(judged=None))


@contextmanager
def served(settings: Settings) -> Iterator[tuple[TestClient, int]]:
    """A service that runs: a client, and the port of its metrics."""
    with TestClient(app := create_app(lambda: open_searchers(settings), settings)) as client:
        server, _ = app.state.metrics.serve("127.0.0.1", 0)
        try:
            yield client, server.server_port
        finally:
            server.shutdown()
            server.server_close()


@contextmanager
def busy(client: TestClient) -> Iterator[None]:
    """Callers who search and write all the time."""
    done = threading.Event()

    def call() -> None:
        for number in count():
            if done.wait(0.1):
                return
            for search in [*SEARCHES, {"query": f"the number {number}"}]:
                client.post("/v1/search", json=search)
            client.put("/v1/documents/note", json={"text": "a note"})

    calling = threading.Thread(target=call)
    calling.start()
    try:
        yield
    finally:
        done.set()
        calling.join()


@contextmanager
def building(data: Path, artifact: Artifact) -> Iterator[int]:
    """`dupmae index build` of a source that does not end; the port of its metrics."""
    port = int(free_address().partition(":")[2])
    code = "from service.cli import main; main()"
    command = [sys.executable, "-c", code, "index", "build", "-", "--index", "notes", "--metrics-port", str(port)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DUPMAE_")}
    environment |= {"DUPMAE_DATA": str(data), "DUPMAE_ARTIFACT": str(artifact.path), "DUPMAE_THREADS": "1"}
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdin is not None
        for number in range(50):
            process.stdin.write(json.dumps({"_id": str(number), "text": f"the note {number}"}).encode() + b"\n")
        process.stdin.flush()
        try:
            yield port
        finally:
            process.kill()


@pytest.fixture(scope="module")
def watched(reading_artifact: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    def settings(name: str, index: str, **options: Any) -> Settings:
        return Settings(data=tmp_path_factory.mktemp(name), index=index, threads=1, probe_s=PROBE_S, **options)

    encoder = Encoder(reading_artifact, threads=1)
    full, empty = settings("full", "default", writable=True), settings("empty", "letters")
    build(reading_artifact, encoder, full)
    with ExitStack() as stack:
        client, port = stack.enter_context(served(full))
        empty_client, empty_port = stack.enter_context(served(empty))
        build_port = stack.enter_context(building(full.data, reading_artifact))
        addresses, messages = stack.enter_context(webhooks())
        manager = stack.enter_context(alertmanager(tmp_path_factory.mktemp("alertmanager"), addresses))
        targets = {"dupmae": [port, empty_port], "dupmae-build": [build_port]}
        folder = tmp_path_factory.mktemp("prometheus")
        prometheus_client = stack.enter_context(prometheus(folder, targets, alertmanager=manager, holds_s=1))
        alertmanager_client = stack.enter_context(httpx.Client(base_url=f"http://{manager}/api/v2", timeout=30))
        stack.enter_context(busy(client))
        yield Watched(
            prometheus_client,
            alertmanager_client,
            messages,
            empty_client,
            f"127.0.0.1:{empty_port}",
            lambda: build(reading_artifact, encoder, empty),
        )


def queries(dashboard: Path) -> set[str]:
    panels = json.loads(dashboard.read_text())["panels"]
    return {target["expr"] for panel in panels for target in panel.get("targets", [])}


def has_data(client: httpx.Client, query: str) -> bool:
    asked = query.replace("$__rate_interval", "1m")
    series = client.get("/query", params={"query": asked}).json()["data"]["result"]
    return any(math.isfinite(float(each["value"][1])) for each in series)


def message(messages: "SimpleQueue[Message]", status: str, alert: str) -> Message:
    """The first message about an alert in this state."""
    until = time.monotonic() + LONGEST_WAIT_S
    while True:
        told = messages.get(timeout=max(0.0, until - time.monotonic()))
        if (told["status"], told["groupLabels"]) == (status, {"alertname": alert}):
            return told


@pytest.mark.parametrize("dashboard", FILES, ids=lambda path: path.stem)
def test_each_query_of_a_dashboard_has_data_and_each_panel_of_its_picture_a_curve(
    watched: Watched, dashboard: Path
) -> None:
    missing = queries(dashboard) - WITHOUT_DATA.keys()
    panels = [graph for graphs in DASHBOARDS[dashboard.stem].values() for graph in graphs]
    undrawn = [graph for graph in panels if set(graph.queries.values()) - WITHOUT_DATA.keys()]
    until = time.monotonic() + LONGEST_WAIT_S
    while (missing or undrawn) and time.monotonic() < until:
        now = time.time()
        missing = {query for query in missing if not has_data(watched.prometheus, query)}
        undrawn = [graph for graph in undrawn if not curves(watched.prometheus, graph, Period(now - 30, now))]
    assert not missing
    assert not undrawn


def test_what_is_left_out_is_asked_by_a_dashboard() -> None:
    assert set().union(*map(queries, FILES)) >= WITHOUT_DATA.keys()


def test_an_alert_is_delivered_with_its_severity_and_its_runbook_and_so_is_its_end(watched: Watched) -> None:
    told = message(watched.messages["page"], "firing", "DupmaeNotReady")
    assert told["receiver"] == "page"
    [alert] = told["alerts"]
    assert alert["labels"] == {
        "alertname": "DupmaeNotReady",
        "instance": watched.empty_instance,
        "job": "dupmae",
        "severity": "page",
    }
    assert alert["annotations"] == {
        "summary": f"{watched.empty_instance} runs, and its default index cannot be searched",
        "runbook": "docs/operations.md#dupmaenotready",
    }
    watched.fill()
    assert watched.empty.get("/readyz").status_code == 200
    told = message(watched.messages["page"], "resolved", "DupmaeNotReady")
    assert [each["labels"] for each in told["alerts"]] == [alert["labels"]]
    assert told["alerts"][0]["endsAt"] > alert["startsAt"]


@pytest.mark.parametrize(
    ("cause", "consequence"),
    [
        ({"alertname": "DupmaeNobodyAnswers", "severity": "page"}, {"alertname": "DupmaeDown", "severity": "ticket"}),
        ({"alertname": "DupmaeStoreAway", "severity": "page"}, {"alertname": "DupmaeNotReady", "severity": "page"}),
        ({"alertname": "DupmaeDiskFull", "severity": "page"}, {"alertname": "DupmaeDiskFilling", "severity": "ticket"}),
        (
            {"alertname": "DupmaeErrorsBurn", "severity": "page"},
            {"alertname": "DupmaeErrorsBurn", "severity": "ticket"},
        ),
    ],
    ids=lambda labels: labels["alertname"],
)
def test_what_another_alert_explains_is_kept_back_and_what_happens_elsewhere_is_not(
    watched: Watched, cause: dict[str, str], consequence: dict[str, str]
) -> None:
    apart = {"index": "of-this-test"}  # a group of its own, so that no message of another test has these alerts in it
    here, elsewhere = apart | {"instance": "here", "job": "one"}, apart | {"instance": "elsewhere", "job": "other"}
    firing = [cause | here, consequence | here, consequence | elsewhere]
    watched.alertmanager.post("/alerts", json=[{"labels": labels} for labels in firing]).raise_for_status()
    wanted = [False, True, cause["alertname"] == "DupmaeNobodyAnswers"]
    kept_back: list[bool] = []
    until = time.monotonic() + LONGEST_WAIT_S
    while kept_back != wanted and time.monotonic() < until:  # Alertmanager takes alerts first and looks at them then
        alerts = watched.alertmanager.get("/alerts").json()
        kept_back = [
            bool(each["status"]["inhibitedBy"]) for labels in firing for each in alerts if each["labels"] == labels
        ]
    assert kept_back == wanted
