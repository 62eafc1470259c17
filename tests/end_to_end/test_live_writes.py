"""Live writes to a real process through rebuilds, switches and kills: what was acknowledged is there afterwards."""

import json
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import httpx
import pytest

from indexer.edge import EdgeEngine
from tests.end_to_end.conftest import Dupmae, Service

pytestmark = pytest.mark.slow

Start = Callable[..., AbstractContextManager[Service]]

WRITERS = 3
PATIENCE_S = 60
GONE = "gone"


ANY_QUALITY = ("--tolerance", "1")
"""What a random network finds of documents that are written meanwhile says nothing."""


class Writers:
    """Clients that each put and delete documents of their own, and remember what was acknowledged; one searches.

    Attributes:
        kept: Text by document id, `GONE` where its deletion was acknowledged.
        open: Documents whose last write was never answered: either state is right.
        wrong: Answers that should not be.
    """

    def __init__(self) -> None:
        self.kept: dict[str, str] = {}
        self.open: dict[str, str] = {}
        self.wrong: list[str] = []
        self.acknowledged = 0
        self._changed = threading.Condition()

    @contextmanager
    def writing_to(self, address: str) -> Iterator[None]:
        """Write until the block ends, or until the service is away."""
        stop = threading.Event()
        threads = [threading.Thread(target=self._write, args=(address, name, stop)) for name in "abc"[:WRITERS]]
        threads.append(threading.Thread(target=self._search, args=(address, stop)))
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            for thread in threads:
                thread.join()

    def wait_for_more(self, count: int = 30) -> None:
        """Return when so many more writes were acknowledged."""
        with self._changed:
            enough = self.acknowledged + count
            assert self._changed.wait_for(lambda: self.acknowledged >= enough, PATIENCE_S), self.wrong

    def check(self, address: str) -> None:
        """Every document is as its last acknowledged write left it, for reading and for searching."""
        with httpx.Client(base_url=address, timeout=PATIENCE_S) as client:
            for id, text in self.kept.items():
                assert self._read(client, id) in {text, self.open.get(id, text)}, id
            answer = client.post("/v1/search", json={"query": "the king", "limit": 1000, "mode": "cls"}).json()
        found = {result["id"]: result["text"] for result in answer["results"]}
        for id, text in self.kept.items():
            assert found.get(id, GONE) in {text, self.open.get(id, text)}, id

    def _write(self, address: str, name: str, stop: threading.Event) -> None:
        chance = random.Random(name)
        with httpx.Client(base_url=address, timeout=PATIENCE_S) as client:
            while not stop.is_set():
                id = f"{name}/{chance.randrange(20)}"
                text = GONE if chance.random() < 0.3 else f"the king of island {chance.randrange(10**6)}"
                self.open[id] = text
                try:
                    response = self._change(client, id, text)
                except httpx.HTTPError:
                    return
                if response.status_code not in {200, 201, 404}:
                    self.wrong.append(f"{response.status_code}: {response.text}")
                    return
                self.kept[id] = self.open.pop(id)
                with self._changed:
                    self.acknowledged += 1
                    self._changed.notify_all()
                try:
                    if (read := self._read(client, id)) != text:
                        self.wrong.append(f"{id} is {read!r} right after {text!r} was acknowledged")
                except httpx.HTTPError:
                    return

    def _search(self, address: str, stop: threading.Event) -> None:
        with httpx.Client(base_url=address, timeout=PATIENCE_S) as client:
            while not stop.is_set():
                try:
                    response = client.post("/v1/search", json={"query": "the king", "limit": 100})
                except httpx.HTTPError:
                    return
                if response.status_code != 200:
                    self.wrong.append(f"search: {response.status_code}: {response.text}")

    def _change(self, client: httpx.Client, id: str, text: str) -> httpx.Response:
        path = f"/v1/documents/{id}"
        return client.delete(path) if text == GONE else client.put(path, json={"text": text})

    def _read(self, client: httpx.Client, id: str) -> str:
        response = client.get(f"/v1/documents/{id}")
        return GONE if response.status_code == 404 else str(response.json()["text"])


def wait_until_served(address: str, build_id: str) -> None:
    for _ in range(2000):
        if httpx.get(f"{address}/readyz", timeout=PATIENCE_S).json()["build"] == build_id:
            return
    pytest.fail(f"build {build_id} is not served")


def test_no_acknowledged_write_is_lost_by_a_rebuild_a_publish_a_rollback_or_a_kill(
    start: Start, dupmae: Dupmae, tmp_path: Path
) -> None:
    source = tmp_path / "documents.jsonl"
    source.write_text("".join(json.dumps({"_id": f"a/{n}", "text": f"the old king {n}"}) + "\n" for n in range(20)))
    place = {"DUPMAE_DATA": str(tmp_path / "data"), "DUPMAE_WRITABLE": "true", "DUPMAE_SWITCH_S": "0.5"}
    quiet = place | {"DUPMAE_LOG_LEVEL": "error"}

    def run(*command: str) -> str:
        done = dupmae("index", *command, "--json", **place)
        assert done.returncode == 0, done.stderr
        return str(json.loads(done.stdout)["id"])

    writers = Writers()
    first = run("build", str(source))
    with start(**quiet) as service:
        with writers.writing_to(service.address):
            writers.wait_for_more()
            second = run("build", str(source), *ANY_QUALITY)
            wait_until_served(service.address, second)
            writers.wait_for_more()
            third = run("build", str(source), "--no-publish")
            writers.wait_for_more()
            EdgeEngine(tmp_path / "data").publish(EdgeEngine(tmp_path / "data").builds("default")[0])
            wait_until_served(service.address, third)
            assert run("rollback") == second
            wait_until_served(service.address, second)
            writers.wait_for_more()
            service.process.kill()
        service.process.wait()
    assert writers.wrong == []
    with start(**quiet) as service:
        writers.check(service.address)
        with writers.writing_to(service.address):
            writers.wait_for_more()
            assert run("publish", first, *ANY_QUALITY) == first
            service.process.kill()  # perhaps before the switch, perhaps in it, perhaps after it
        service.process.wait()
    assert writers.wrong == []
    with start(**quiet) as service:
        assert httpx.get(f"{service.address}/readyz").json()["build"] == first
        writers.check(service.address)
    print(f"{writers.acknowledged} acknowledged writes, {len(writers.open)} never answered")


def test_the_writer_shuts_other_processes_out_and_says_who_it_is(start: Start, dupmae: Dupmae, tmp_path: Path) -> None:
    source = tmp_path / "documents.jsonl"
    source.write_text('{"_id": "1", "text": "the king"}\n')
    place = {"DUPMAE_DATA": str(tmp_path / "data")}
    assert dupmae("index", "build", str(source), **place).returncode == 0
    with start(**place, DUPMAE_WRITABLE="true") as service:
        refused = dupmae("search", "king", **place)
        assert refused.returncode == 1
        assert f"is being written by process {service.process.pid}" in refused.stderr
    assert dupmae("search", "king", **place).returncode == 0
