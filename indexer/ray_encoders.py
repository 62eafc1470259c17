"""Encoding on a Ray cluster: actors on any machine, each with a model of its own.

Only encoding goes there. It is nearly all of what a build costs, and reading, the ledger and the gate stay one
implementation. An actor that is killed is started again and its windows are encoded anew, so nothing is lost; points
are written under ids of their own, so nothing is doubled. The artifact travels through Ray's object store: the machines
need this package and no shared folder.
"""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from typing import Any

from indexer.catalog import open_encoder
from indexer.chunking import Chunker
from indexer.documents import Document
from indexer.encoders import EncoderDied, Encoders
from indexer.encoding import Encoded, encode_passages
from indexer.settings import IndexSettings
from indexer.store import Chunking
from model.artifact import Artifact

READY_S = 120
"""Seconds in which every encoder must have found its cores and opened the model."""

RETRIES = 3
"""Times that a window is encoded again when its actor is killed: one window may be too large for the machine."""


class RayEncoder:
    """An actor: an artifact unpacked into a folder that goes with it."""

    def __init__(self, files: dict[str, bytes], settings: IndexSettings, chunking: Chunking | None) -> None:
        """Open the artifact that the files are."""
        self._folder = tempfile.TemporaryDirectory()
        for name, content in files.items():
            Path(self._folder.name, name).write_bytes(content)
        encoder = open_encoder(settings, Artifact.open(Path(self._folder.name)))
        self._chunker = Chunker(encoder, chunking)

    def encode(self, documents: Sequence[Document]) -> Encoded:
        """Documents to passages with vectors."""
        return encode_passages(self._chunker, documents)


@contextmanager
def encoding_on_ray(
    settings: IndexSettings, artifact: Artifact, chunking: Chunking | None, workers: int
) -> Iterator[Encoders]:
    """Encode in `workers` actors of the cluster that this process is connected to, or of a local one.

    An actor takes `DUPMAE_THREADS` cores, or one.
    """
    import ray

    started = not ray.is_initialized()
    if started:
        ray.init(include_dashboard=False, log_to_driver=False)  # RAY_ADDRESS says which cluster; without it a local one
    try:
        nowhere = {"qdrant_url": None, "qdrant_api_key": None}  # no secret travels
        share = settings.model_copy(update={"threads": settings.threads or 1, **nowhere})
        actor: Any = ray.remote(num_cpus=share.threads, max_restarts=-1, max_task_retries=RETRIES)(RayEncoder)
        files = ray.put({path.name: path.read_bytes() for path in artifact.path.iterdir() if path.is_file()})
        actors = [actor.remote(files, share, chunking) for _ in range(workers)]
        _, waiting = ray.wait([each.__ray_ready__.remote() for each in actors], num_returns=workers, timeout=READY_S)
        if waiting:
            raise EncoderDied(
                f"{len(waiting)} of {workers} encoders found no place in {READY_S} s; ask for fewer (--encoders), or "
                f"let each take fewer cores (DUPMAE_THREADS, now {share.threads})"
            )
        turns = cycle(actors)
        yield Encoders(
            lambda documents: next(turns).encode.remote(documents).future(), workers, (ray.exceptions.RayActorError,)
        )
    finally:
        if started:
            ray.shutdown()
