"""From clone to a running stack: images built, brought up by Compose, answering through their published ports."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import httpx
import pytest

from tests.deploy import podman
from tests.deploy.stack import Stack, running

pytestmark = pytest.mark.compose

T = TypeVar("T")

NOTES = {
    "red": "The red kettle in the kitchen boils water in two minutes",
    "blue": "Bicycles with a blue frame are kept in the cellar",
    "green": "The green valve shuts off the gas of the whole house",
}
HARBOUR = "The ferry leaves the harbour at seven in the morning"


def write_notes(folder: Path, notes: dict[str, str]) -> None:
    lines = [json.dumps({"_id": name, "text": text}) for name, text in notes.items()]
    (folder / "notes.jsonl").write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("documents")
    for parent in [folder, *folder.parents[:2]]:
        parent.chmod(0o755)  # what a container without rights reads must be readable to everybody
    write_notes(folder, NOTES)
    return folder


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, documents: Path) -> Iterator[Stack]:
    with running(tmp_path_factory.mktemp("stack"), documents) as stack:
        yield stack


@pytest.fixture
def client(stack: Stack) -> Iterator[httpx.Client]:
    with stack.client() as client:
        yield client


def until(look: Callable[[], T | None], within_s: float = 60) -> T:
    """What `look` gives as soon as it gives something."""
    pause, deadline = threading.Event(), time.monotonic() + within_s
    while (seen := look()) is None:
        assert time.monotonic() < deadline, f"nothing within {within_s} seconds"
        pause.wait(0.2)
    return seen


def ask(stack: Stack, done: threading.Event, statuses: list[int]) -> None:
    """Search the notes, one query after the other."""
    with stack.client() as client:
        while not done.is_set():
            answer = client.post("/v1/search", json={"query": "what shuts off the gas", "index": "notes"})
            statuses.append(answer.status_code)


def scraped(prometheus: httpx.Client) -> str | None:
    """The value of `up` for the service, once there is one."""
    answer = prometheus.get("/api/v1/query", params={"query": 'up{job="dupmae"} == 1'}).json()
    series = answer["data"]["result"]
    return series[0]["value"][1] if series else None


def found(client: httpx.Client, query: str, **options: str) -> tuple[str, str]:
    """The first result of a search, and the build that answered."""
    answer = client.post("/v1/search", json={"query": query, **options})
    assert answer.status_code == 200, answer.text
    body = answer.json()
    return body["results"][0]["id"], body["meta"]["index"]["build"]


def test_the_first_up_answers_queries_without_a_further_command(client: httpx.Client) -> None:
    name, _ = found(client, "how do I compress a file")
    assert name.startswith(("gzip", "zipfile", "zlib", "bz2", "lzma", "tarfile", "shutil", "compress"))


def test_every_container_is_healthy_and_has_no_rights(stack: Stack) -> None:
    containers = stack.containers()
    assert set(containers) == {"service", "prometheus", "alertmanager"}
    for name, told in containers.items():
        assert told["State"]["Health"]["Status"] == "healthy", name
        assert told["HostConfig"]["ReadonlyRootfs"], name
        assert not told["EffectiveCaps"], name
        assert told["Config"]["User"].split(":")[0] not in ("", "0", "root"), name
        assert "no-new-privileges" in str(told["HostConfig"]["SecurityOpt"]), name


def test_nothing_is_published_beyond_loopback(stack: Stack) -> None:
    published = [
        binding["HostIp"]
        for told in stack.containers().values()
        for bindings in (told["NetworkSettings"]["Ports"] or {}).values()
        for binding in bindings or []
    ]
    assert published
    assert set(published) == {"127.0.0.1"}


def test_the_image_holds_neither_torch_nor_pip_and_writes_no_file_of_its_own(stack: Stack) -> None:
    script = (
        "import importlib.util as found, os, pathlib, model.encoder\n"
        "assert not any(map(found.find_spec, ['torch', 'transformers', 'pip']))\n"
        "assert os.getuid() == 10001\n"
        "for folder in ['/opt/dupmae', '/opt/python', '/etc']:\n"
        "    assert not os.access(folder, os.W_OK), folder\n"
        "pathlib.Path('/data/written').write_text('')\n"
        "print('as it should be')"
    )
    assert "as it should be" in stack.compose("exec", "-T", "service", "python3", "-c", script)


def test_prometheus_scrapes_the_service_and_knows_its_alertmanager(stack: Stack) -> None:
    with stack.client("PROMETHEUS_PORT") as prometheus, stack.client("ALERTMANAGER_PORT") as alertmanager:
        assert alertmanager.get("/-/ready").status_code == 200
        managers = prometheus.get("/api/v1/alertmanagers").json()["data"]["activeAlertmanagers"]
        assert [manager["url"] for manager in managers] == ["http://alertmanager:9093/api/v2/alerts"]
        assert until(lambda: scraped(prometheus)) == "1"


def test_a_rebuild_beside_running_queries_is_taken_up_without_an_error(
    stack: Stack, client: httpx.Client, documents: Path
) -> None:
    build = ("run", "--rm", "-T", "indexer", "build", "/documents/notes.jsonl", "--index", "notes")
    stack.compose(*build)
    name, before = found(client, "what shuts off the gas", index="notes")
    assert name == "green"
    write_notes(documents, NOTES | {"harbour": HARBOUR})
    done, answers = threading.Event(), list[int]()
    asking = threading.Thread(target=ask, args=(stack, done, answers))
    asking.start()
    try:
        stack.compose(*build)
        until(lambda: found(client, "when does the ship sail", index="notes")[1] != before or None)
    finally:
        done.set()
        asking.join()
    assert found(client, "when does the ship sail", index="notes")[0] == "harbour"
    assert len(answers) > 10
    assert set(answers) == {200}


def test_the_image_for_serving_is_small(stack: Stack) -> None:
    base = podman.image_size(podman.BASE)
    own = {
        target: podman.image_size(f"docker.io/library/dupmae-search:{target}") - base for target in ("serve", "index")
    }
    print({name: f"{size / 1e6:.0f} MB above the base" for name, size in own.items()})
    print({name: f"{seconds:.1f} s" for name, seconds in stack.seconds.items()})
    assert own["serve"] < 400e6 < own["index"]
