"""A build whose encoders are actors of a Ray cluster is the build of one process, also when an actor is killed."""

import subprocess
import sys
from pathlib import Path

import pytest

from indexer.build import BuildOptions, build_index
from indexer.edge import EdgeEngine
from model.artifact import Artifact
from model.encoder import Encoder
from tests.indexer.test_resume import INDEX, documents, points_of

BUILD = """
import os, signal, sys, time
from pathlib import Path
import ray
from indexer.build import BuildOptions, build_index
from indexer.edge import EdgeEngine
from indexer.encoders import Encoders
from indexer.ray_encoders import encoding_on_ray
from indexer.settings import IndexSettings
from indexer.store import Chunking
from model.artifact import Artifact
from model.encoder import Encoder
from tests.indexer.test_resume import INDEX, documents
path, data = map(Path, sys.argv[1:])
artifact = Artifact.open(path)
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, _node_ip_address="127.0.0.1")

def encoder_process():
    while True:
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            if path.read_bytes().startswith(b"ray::RayEncoder"):
                return int(path.parent.name)
        time.sleep(0.1)

def records():
    for number, document in enumerate(documents(3000)):
        if number == 2000:
            os.kill(encoder_process(), signal.SIGKILL)
            print("killed")
        yield document

options = BuildOptions(index=INDEX, data=data)
encoding = encoding_on_ray(IndexSettings(), artifact, Chunking(), 2)
build_index(EdgeEngine(data), Encoder(artifact, threads=1), records(), options, encoding=encoding)
"""


@pytest.mark.ray
def test_two_workers_of_which_one_is_killed_make_the_build_of_one_process(
    tiny_artifact: Artifact, tiny_encoder: Encoder, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", BUILD, str(tiny_artifact.path), str(tmp_path / "ray")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "killed" in done.stdout
    options = BuildOptions(index=INDEX, data=tmp_path)
    alone = build_index(EdgeEngine(tmp_path), tiny_encoder, documents(3000), options)
    apart = EdgeEngine(tmp_path / "ray")
    [ready] = apart.builds(INDEX)
    assert (ready.state, ready.documents, ready.dead) == ("ready", alone.documents, alone.dead) == ("ready", 2940, 60)
    for one, two in zip(points_of(EdgeEngine(tmp_path), alone), points_of(apart, ready), strict=True):
        assert (one.id, one.payload) == (two.id, two.payload)
