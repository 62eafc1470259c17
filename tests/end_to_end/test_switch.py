"""A service under load while other builds are published: no request fails, and no answer is of two builds."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import httpx
import pytest

from indexer.build import BuildOptions, build_index
from indexer.catalog import keep_artifact
from indexer.documents import Document
from indexer.edge import EdgeEngine
from indexer.settings import IndexSettings
from indexer.store import Build
from model.artifact import Artifact
from model.encoder import Encoder
from tests.end_to_end.conftest import Dupmae, Service

pytestmark = pytest.mark.slow

Start = Callable[..., AbstractContextManager[Service]]
Ask = Callable[[httpx.Client], httpx.Response]

CLIENTS = 4
PATIENCE_S = 60


class Load:
    """Clients that search as fast as they are answered, and remember what was wrong."""

    def __init__(self, address: str, builds: dict[str, Build]) -> None:
        self._address = address
        self._builds = builds
        self._stop = threading.Event()
        self._changed = threading.Condition()
        self.answers: dict[str, int] = {}
        self.wrong: list[str] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        threads = [threading.Thread(target=self._ask) for _ in range(CLIENTS)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()

    def wait_for(self, build: Build) -> float:
        """Seconds until the build has answered some more requests."""
        began = time.monotonic()
        with self._changed:
            enough = self.answers.get(build.id, 0) + 5 * CLIENTS
            assert self._changed.wait_for(lambda: self.answers.get(build.id, 0) >= enough, PATIENCE_S), self.wrong
        return time.monotonic() - began

    def _ask(self) -> None:
        with httpx.Client(base_url=self._address, timeout=PATIENCE_S) as client:
            while not self._stop.is_set():
                try:
                    self._check(client)
                except httpx.HTTPError as error:
                    self.wrong.append(repr(error))

    def _check(self, client: httpx.Client) -> None:
        if (ready := client.get("/readyz")).status_code != 200:
            self.wrong.append(f"not ready: {ready.text}")
        response = client.post("/v1/search", json={"query": "the king of the island"})
        if response.status_code != 200:
            self.wrong.append(f"{response.status_code}: {response.text}")
            return
        answer = response.json()
        build = self._builds[answer["meta"]["index"]["build"]]
        if answer["meta"]["model"]["fingerprint"] != build.fingerprint:
            self.wrong.append(f"artifact of another build than {build.id}: {answer['meta']}")
        if {result["metadata"]["of"] for result in answer["results"]} != {build.source}:
            self.wrong.append(f"documents of another build than {build.id}: {answer['results']}")
        with self._changed:
            self.answers[build.id] = self.answers.get(build.id, 0) + 1
            self._changed.notify_all()


def make(data: Path, artifact: Artifact, name: str) -> Build:
    """A build whose documents know its name."""
    settings, engine = IndexSettings(data=data), EdgeEngine(data)
    documents = [Document(str(n), text=f"the king of island number {n}", metadata={"of": name}) for n in range(20)]
    encoder = Encoder(keep_artifact(settings, artifact), threads=1)
    return build_index(engine, encoder, documents, BuildOptions(source=name))


def test_publish_change_of_model_and_rollback_under_load(
    start: Start, dupmae: Dupmae, tmp_path: Path, tiny_artifact: Artifact, tiny_artifact_fp16: Artifact
) -> None:
    first = make(tmp_path, tiny_artifact, "first")
    second = make(tmp_path, tiny_artifact, "second")
    third = make(tmp_path, tiny_artifact_fp16, "third")
    engine = EdgeEngine(tmp_path)
    engine.publish(first)
    place = {"DUPMAE_DATA": str(tmp_path)}
    with start(**place, DUPMAE_SWITCH_S="0.5", DUPMAE_LOG_LEVEL="error") as service:
        load = Load(service.address, {build.id: build for build in (first, second, third)})
        with load.running():
            load.wait_for(first)
            engine.publish(second)
            took = [load.wait_for(second)]
            engine.publish(third)
            took.append(load.wait_for(third))
            assert dupmae("index", "rollback", **place).returncode == 0
            took.append(load.wait_for(second))
            assert dupmae("index", "rollback", **place).returncode == 0
            took.append(load.wait_for(first))
    assert load.wrong == []
    print("answers:", load.answers, "seconds from publishing to answering:", [round(each, 1) for each in took])


def test_a_switch_that_fails_is_no_error_for_anyone_and_is_mended(
    start: Start, tmp_path: Path, tiny_artifact: Artifact, tiny_artifact_fp16: Artifact
) -> None:
    first, second = make(tmp_path, tiny_artifact, "first"), make(tmp_path, tiny_artifact_fp16, "second")
    kept = tmp_path / "models" / second.fingerprint
    kept.rename(aside := tmp_path / "aside")
    engine = EdgeEngine(tmp_path)
    engine.publish(first)
    with start(DUPMAE_DATA=str(tmp_path), DUPMAE_SWITCH_S="0.2", DUPMAE_LOG_LEVEL="error") as service:
        load = Load(service.address, {build.id: build for build in (first, second)})
        with load.running():
            load.wait_for(first)
            engine.publish(second)
            while 'dupmae_switch_failed{index="default"} 1.0' not in httpx.get(f"{service.address}/metrics").text:
                load.wait_for(first)
            load.wait_for(first)
            aside.rename(kept)
            load.wait_for(second)
            assert 'dupmae_switch_failed{index="default"} 0.0' in httpx.get(f"{service.address}/metrics").text
    assert load.wrong == []
