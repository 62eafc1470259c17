"""What Prometheus sees of a running build: a port to scrape, a file for node-exporter's textfile collector, or both.

A batch job that is gone cannot be scraped; the file stays and says when it was written and how the build ended.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import get_args

from prometheus_client import CollectorRegistry, Gauge, start_http_server, write_to_textfile

from indexer.build import Progress
from indexer.filling import Tally
from indexer.store import State

LOGGER = logging.getLogger("dupmae.build")

WRITE_EVERY_S = 5.0


class JobMetrics:
    """Gauges of one build."""

    def __init__(self, index: str) -> None:
        self.registry = CollectorRegistry()

        def gauge(name: str, what: str, *labels: str) -> Gauge:
            return Gauge(f"dupmae_build_{name}", what, ["index", *labels], registry=self.registry)

        self._index = index
        self._documents = gauge("documents", "Documents of the build, by how they came into it.", "origin")
        self._passages = gauge("passages", "Points of the build.").labels(index)
        self._dead = gauge("dead_letters", "Records that became no document.").labels(index)
        self._read = gauge("records_read", "Records read from the sources.").labels(index)
        self._total = gauge("records", "Records in the sources; 0 when not known.").labels(index)
        self._rate = gauge("documents_per_second", "Documents encoded per second, by this run.").labels(index)
        self._stage = gauge("stage", "1 for the stage that the build is in.", "stage")
        self._updated = gauge("updated_seconds", "Unix time of these figures.").labels(index)
        self._began = time.monotonic()

    def observe(self, tally: Tally) -> None:
        """Take over how far the build is."""
        for origin in ("encoded", "unchanged", "resumed"):
            self._documents.labels(self._index, origin).set(getattr(tally, origin))
        self._passages.set(tally.passages)
        self._dead.set(tally.bad)
        self._read.set(tally.read)
        self._total.set(tally.total or 0)
        self._rate.set(tally.encoded / max(time.monotonic() - self._began, 1e-9))
        self.enter(tally.stage)

    def enter(self, stage: State) -> None:
        """Mark the stage."""
        for each in get_args(State):
            self._stage.labels(self._index, each).set(each == stage)
        self._updated.set(time.time())


@contextmanager
def exposed(
    index: str, watch: Progress, *, port: int | None, file: Path | None
) -> Iterator[tuple[Progress, int | None]]:
    """A callback that tells `watch`, and what was asked for of the port and the file; and the port that is served.

    Raises:
        OSError: The port is taken, or the file cannot be written.
    """
    if port is None and file is None:
        yield watch, None
        return
    metrics, written = JobMetrics(index), float("-inf")
    if file:
        write_to_textfile(str(file), metrics.registry)

    def told(tally: Tally) -> None:
        nonlocal written
        watch(tally)
        metrics.observe(tally)
        if file and (tally.stage == "ready" or time.monotonic() - written > WRITE_EVERY_S):
            _write(file, metrics)
            written = time.monotonic()

    server = start_http_server(port, registry=metrics.registry) if port is not None else None
    try:
        yield told, server[0].server_port if server else None
    except BaseException:
        metrics.enter("failed")
        if file:
            _write(file, metrics)
        raise
    finally:
        if server:
            server[0].shutdown()
            server[0].server_close()


def _write(file: Path, metrics: JobMetrics) -> None:
    """Write the file; where that is no longer possible the build goes on, since it is worth more."""
    try:
        write_to_textfile(str(file), metrics.registry)
    except OSError as error:
        LOGGER.warning("no metrics in %s: %s", file, error)
