"""Prometheus and Alertmanager as the stack configures them, on this machine and without containers.

Of the committed configuration three things are changed, since a container's name leads nowhere here and nobody waits
five minutes for a test: addresses (what is scraped, Alertmanager, the receivers' webhooks), intervals (scraping,
evaluation, and Alertmanager's waits for more of a group), and how long a condition has to hold before an alert fires.
Debian has both: `apt-get install prometheus prometheus-alertmanager`.
"""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml

HERE = Path(__file__).parent
RULES = HERE / "prometheus" / "rules"
STARTS_WITHIN_S = 60

Targets = Mapping[str, Sequence[int]]
"""Ports on this machine, by the name of the job that scrapes them."""


@contextmanager
def prometheus(
    folder: Path, targets: Targets, *, alertmanager: str = "", every_s: float = 0.5, holds_s: int | None = None
) -> Iterator[httpx.Client]:
    """A Prometheus that runs; a client of its API.

    Args:
        folder: An empty one, for its configuration and data.
        targets: What it scrapes.
        alertmanager: Where it sends alerts, as `HOST:PORT`.
        every_s: Seconds between two scrapes, and two looks at the rules.
        holds_s: How long conditions have to hold; as the rules say unless given.
    """
    (folder / "rules").mkdir()
    for path in RULES.glob("*.yml"):
        (folder / "rules" / path.name).write_text(yaml.safe_dump(_held(yaml.safe_load(path.read_text()), holds_s)))
    configuration = _scraping(targets, alertmanager, every_s)
    (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration))
    address = free_address()
    command = [
        program("prometheus"),
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address={address}",
    ]
    with (
        _running(command, f"http://{address}", folder),
        httpx.Client(base_url=f"http://{address}/api/v1", timeout=30) as client,
    ):
        yield client


@contextmanager
def alertmanager(folder: Path, webhooks: Mapping[str, str]) -> Iterator[str]:
    """An Alertmanager that runs; its `HOST:PORT`.

    Args:
        folder: An empty one, for its configuration and data.
        webhooks: Where each of its receivers sends to, by name.
    """
    configuration = yaml.safe_load((HERE / "alertmanager" / "alertmanager.yml").read_text())
    configuration["route"] |= {"group_wait": "100ms", "group_interval": "500ms"}
    for receiver in configuration["receivers"]:
        receiver["webhook_configs"] = [{"url": webhooks[receiver["name"]]}]
    (folder / "alertmanager.yml").write_text(yaml.safe_dump(configuration))
    address = free_address()
    command = [
        program("alertmanager", "prometheus-alertmanager"),
        f"--config.file={folder}/alertmanager.yml",
        f"--storage.path={folder}/data",
        f"--web.listen-address={address}",
        "--cluster.listen-address=",
    ]
    with _running(command, f"http://{address}", folder):
        yield address


def program(*names: str) -> str:
    """The first of these programs that is installed; FileNotFoundError when none is."""
    for name in names:
        if found := shutil.which(name):
            return found
    raise FileNotFoundError(f"{' or '.join(names)} is not installed; apt-get install {names[-1]}")


def free_address() -> str:
    """A `HOST:PORT` of loopback that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return f"127.0.0.1:{free.getsockname()[1]}"


def _scraping(targets: Targets, alertmanager: str, every_s: float) -> dict[str, Any]:
    configuration: dict[str, Any] = yaml.safe_load((HERE / "prometheus" / "prometheus.yml").read_text())
    every = f"{round(1000 * every_s)}ms"
    configuration["global"] = {"scrape_interval": every, "evaluation_interval": every}
    configuration["alerting"]["alertmanagers"] = [_static([alertmanager])] if alertmanager else []
    configuration["scrape_configs"] = [
        {"job_name": job["job_name"], **_static([f"127.0.0.1:{port}" for port in targets[job["job_name"]]])}
        for job in configuration["scrape_configs"]
        if job["job_name"] in targets
    ]
    return configuration


def _static(addresses: Sequence[str]) -> dict[str, Any]:
    return {"static_configs": [{"targets": list(addresses)}]}


def _held(rules: dict[str, Any], holds_s: int | None) -> dict[str, Any]:
    if holds_s is not None:
        for rule in (rule for group in rules["groups"] for rule in group["rules"] if "for" in rule):
            rule["for"] = f"{holds_s}s"
    return rules


@contextmanager
def _running(command: Sequence[str], address: str, folder: Path) -> Iterator[None]:
    """A program until it is ready, and then until it is not wanted any more."""
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        until = time.monotonic() + STARTS_WITHIN_S
        while not _is_ready(address):
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"{command[0]} does not run:\n{(folder / 'log').read_text()[-2000:]}")
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait()


def _is_ready(address: str) -> bool:
    try:
        return httpx.get(f"{address}/-/ready").status_code == 200
    except httpx.TransportError:
        return False
