"""What Prometheus sees. One registry per app, so that two apps in one process do not meet in it."""

from collections.abc import Callable, Mapping
from threading import Thread
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, start_http_server

from indexer.store import Build

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Stage buckets, 1 ms to 10 s: from a warm query on a small index to one that a deadline ends."""

BATCH = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """The metrics of one app; every name starts with `dupmae_`."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self._stages = Histogram(
            "dupmae_stage_seconds", "Time a search spent in a stage.", ["stage"], buckets=SECONDS, registry=registry
        )
        self._requests = Counter(
            "dupmae_search_requests", "Searches by mode and status.", ["mode", "status"], registry=registry
        )
        self._batch_size = Histogram(
            "dupmae_batch_size", "Queries in the batch that a search was encoded in.", buckets=BATCH, registry=registry
        )
        self._queue_depth = Gauge("dupmae_queue_depth", "Queries that wait for the encoder.", registry=registry)
        self._truncated = Counter("dupmae_truncated_queries", "Queries cut to the model's window.", registry=registry)
        self._zero_results = Counter(
            "dupmae_zero_results", "Searches that found nothing.", ["index"], registry=registry
        )
        self._build_info = Gauge(
            "dupmae_build_info",
            "1 for the build each index answers from.",
            ["index", "build", "fingerprint"],
            registry=registry,
        )
        self._documents = Gauge("dupmae_build_documents", "Documents in that build.", ["index"], registry=registry)
        self._switch_failed = Gauge(
            "dupmae_switch_failed",
            "1 while an index cannot answer from what is published; the log has the reason.",
            ["index"],
            registry=registry,
        )
        self._writes = Counter(
            "dupmae_writes", "Documents put or deleted live, acknowledged.", ["index", "kind"], registry=registry
        )
        self._serving: dict[str, Build] = {}

    def watch_queue(self, depth: Callable[[], int]) -> None:
        """Ask `depth` at each scrape."""
        self._queue_depth.set_function(depth)

    def opened(self, build: Build) -> None:
        """An index answers from this build now, and no longer from another."""
        if before := self._serving.get(build.index):
            self._build_info.remove(before.index, before.id, before.fingerprint)
        self._serving[build.index] = build
        self._build_info.labels(build.index, build.id, build.fingerprint).set(1)
        self._documents.labels(build.index).set(build.documents)

    def switch_failed(self, index: str, failed: bool) -> None:
        """Whether an index cannot answer from what is published."""
        self._switch_failed.labels(index).set(failed)

    def written(self, index: str, kind: str) -> None:
        """A document was put or deleted."""
        self._writes.labels(index, kind).inc()

    def requested(self, mode: str, status: int) -> None:
        """A search was answered, with whatever status."""
        self._requests.labels(mode, status).inc()

    def searched(self, index: str, took: Mapping[str, float], *, batch: int, truncated: bool, found: bool) -> None:
        """A search ran to its end; `took` in seconds by stage."""
        for stage, seconds in took.items():
            self._stages.labels(stage).observe(seconds)
        self._batch_size.observe(batch)
        self._truncated.inc(truncated)
        self._zero_results.labels(index).inc(not found)

    def serve(self, host: str, port: int) -> tuple[WSGIServer, Thread]:
        """Serve them in a thread, at any path of that address; OSError when it is taken."""
        return start_http_server(port, addr=host, registry=self._registry)

    def text(self) -> bytes:
        """The exposition format that Prometheus scrapes."""
        return generate_latest(self._registry)
