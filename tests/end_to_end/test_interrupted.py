"""Ctrl-C in a terminal: the command ends at once, says where things stand, and exits with 130."""

import os
import signal
import subprocess
import time
from pathlib import Path

from indexer.edge import EdgeEngine
from tests.end_to_end.conftest import COMMAND


def wait_for_state(data: Path, state: str, process: "subprocess.Popen[bytes]") -> None:
    while [build.state for build in EdgeEngine(data).builds("default")] != [state]:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


def test_a_build_that_waits_for_an_idle_pipe_ends(environment: dict[str, str], tmp_path: Path) -> None:
    reading, writing = os.pipe()  # nothing comes out of it, and it does not end either
    changed = environment | {"DUPMAE_DATA": str(tmp_path)}
    with subprocess.Popen(
        [*COMMAND, "index", "build", "-"], env=changed, stdin=reading, stderr=subprocess.PIPE
    ) as build:
        wait_for_state(tmp_path, "encoding", build)
        build.send_signal(signal.SIGINT)
        _, said = build.communicate(timeout=60)
    assert build.returncode == 130, said
    assert b"dupmae: interrupted; what is published did not change" in said
    assert b"Fatal Python error" not in said
    os.close(writing)
    os.close(reading)
    [left] = EdgeEngine(tmp_path).builds("default")
    assert (left.state, left.reason) == ("failed", "interrupted")
