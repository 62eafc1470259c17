"""The `dupmae` command in processes of its own: an index that it built, and a service that it runs."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from model.artifact import Artifact

COMMAND = [sys.executable, "-c", "from service.cli import main; main()"]

DOCUMENTS = [
    {
        "_id": "zip",
        "title": "Compress",
        "text": "How to compress a file, and how to read it.",
        "url": "https://x.test/z",
    },
    {
        "_id": "sound",
        "title": "<b>Sound</b>",
        "text": "The speed of sound in <i>air</i> & water.",
        "url": "javascript:x",
    },
    {"_id": "king", "title": "", "text": "The king and the queen of the island had a horse, two dogs and a cat."},
    {"_id": "sea", "title": "The sea", "text": "A ship at sea by night, an island in the morning."},
]

Dupmae = Callable[..., "subprocess.CompletedProcess[str]"]


class Service(NamedTuple):
    """A running `dupmae serve`. Its log is a file, since a pipe that nobody empties would stop it once it is full."""

    address: str
    process: "subprocess.Popen[bytes]"
    log: Path

    def ended(self, timeout: float) -> str:
        """What it wrote, once it has ended; that takes `timeout` seconds at most."""
        self.process.wait(timeout)
        return self.log.read_text()


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory, tiny_artifact: Artifact) -> dict[str, str]:
    """The environment of the command: none of the caller's settings, a data folder and a small model."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("DUPMAE_") and name != "PORT"}
    data = tmp_path_factory.mktemp("data")
    return inherited | {"DUPMAE_DATA": str(data), "DUPMAE_ARTIFACT": str(tiny_artifact.path), "DUPMAE_THREADS": "1"}


@pytest.fixture(scope="session")
def dupmae(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Dupmae:
    """Runs one command to its end, in an empty folder."""
    folder = tmp_path_factory.mktemp("cwd")

    def run(*arguments: str, **changes: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [*COMMAND, *arguments],
            env=environment | changes,
            cwd=folder,
            text=True,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=120,
            check=False,
        )

    return run


@pytest.fixture(scope="session")
def index(dupmae: Dupmae, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The name of an index that `dupmae index build` made."""
    source: Path = tmp_path_factory.mktemp("source") / "documents.jsonl"
    source.write_text("".join(json.dumps(document) + "\n" for document in DOCUMENTS))
    built = dupmae("index", "build", str(source))
    assert built.returncode == 0, built.stderr
    return "default"


@pytest.fixture(scope="session")
def start(
    environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., AbstractContextManager[Service]]:
    """Starts `dupmae serve` on a free port; ready when entered, killed when left unless it has ended."""

    @contextmanager
    def run(**changes: str) -> Iterator[Service]:
        command, log = [*COMMAND, "serve", "--port", "0"], tmp_path_factory.mktemp("served") / "log"
        with log.open("wb") as file, subprocess.Popen(command, env=environment | changes, stderr=file) as process:
            try:
                while not (found := re.search(r"at (http://\S+)\n", log.read_text())):
                    if process.poll() is not None:
                        pytest.fail("the service ended by itself:\n" + log.read_text())
                    time.sleep(0.02)
                yield Service(found[1], process, log)
            finally:
                process.kill()

    return run
