"""What Prometheus sees. One registry per app, so that two apps in one process do not meet in it."""

import math
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Thread
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, start_http_server

from indexer.store import Build, Condition
from service.drift import Drift
from service.probe_metrics import ProbeMetrics

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Stage buckets, 1 ms to 10 s: from a warm query on a small index to one that a deadline ends."""

BATCH = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """The metrics of one app; every name starts with `dupmae_`.

    Attributes:
        drift: Told of queries and their best results.
        probe: Told of the quality probe.
    """

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self._stages = Histogram(
            "dupmae_stage_seconds", "Time a search spent in a stage.", ["stage"], buckets=SECONDS, registry=registry
        )
        self._requests = Counter(
            "dupmae_search_requests", "Searches by mode and status.", ["mode", "status"], registry=registry
        )
        self._answered = Histogram(
            "dupmae_search_seconds", "Time of a whole search that was answered 200.", buckets=SECONDS, registry=registry
        )
        self._batch_size = Histogram(
            "dupmae_batch_size", "Texts in the batch that a search was encoded in.", buckets=BATCH, registry=registry
        )
        self._queue_depth = Gauge("dupmae_queue_depth", "Texts that wait for the encoder.", registry=registry)
        self._store_queue_depth = Gauge(
            "dupmae_store_queue_depth", "Calls that wait for a thread to ask a store.", registry=registry
        )
        self._queue_limit = Gauge(
            "dupmae_queue_limit", "How many may wait for the encoder, and for a store.", registry=registry
        )
        self._ready = Gauge("dupmae_ready", "1 while the default index can be searched.", registry=registry)
        self._store_away = Gauge(
            "dupmae_store_away", "1 while the store of an index does not answer.", ["index"], registry=registry
        )
        self._disk_free = Gauge(
            "dupmae_data_free_bytes", "Bytes left on the file system of the data folder.", registry=registry
        )
        self._disk_size = Gauge(
            "dupmae_data_size_bytes", "Bytes that the file system of the data folder has.", registry=registry
        )
        self._cache = Counter("dupmae_cache", "Look-ups in a cache.", ["cache", "outcome"], registry=registry)
        self._cache_bytes = Gauge("dupmae_cache_bytes", "Bytes that the caches hold.", registry=registry)
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
        self._segments = Gauge(
            "dupmae_build_segments", "Parts that the engine keeps that build in.", ["index"], registry=registry
        )
        self._size = Gauge(
            "dupmae_build_size_bytes",
            "Bytes of that build on disk when it was opened; embedded engine only.",
            ["index"],
            registry=registry,
        )
        self._switch_failed = Gauge(
            "dupmae_switch_failed",
            "1 while an index cannot answer from what is published; the log has the reason.",
            ["index"],
            registry=registry,
        )
        self._writes = Counter(
            "dupmae_writes", "Documents put or deleted live, acknowledged.", ["index", "kind"], registry=registry
        )
        self._embedded = Counter(
            "dupmae_embedded_texts", "Texts encoded for callers who wanted vectors.", ["role"], registry=registry
        )
        self.drift = Drift(registry)
        self.probe = ProbeMetrics(registry)
        self._serving: dict[str, Build] = {}

    def watch_queues(self, *, encoder: Callable[[], int], store: Callable[[], int], limit: int) -> None:
        """Ask for their depths at each scrape; `limit` bounds either."""
        self._queue_limit.set(limit)
        self._queue_depth.set_function(encoder)
        self._store_queue_depth.set_function(store)

    def watch_cache(self, size: Callable[[], int]) -> None:
        """Ask for its bytes at each scrape."""
        self._cache_bytes.set_function(size)

    def watch_readiness(self, ready: Callable[[], bool]) -> None:
        """Ask for it at each scrape."""
        self._ready.set_function(ready)

    def watch_disk(self, folder: Path) -> None:
        """Ask for the space around this folder at each scrape; NaN while it is not there."""
        self._disk_free.set_function(lambda: _disk(folder)[0])
        self._disk_size.set_function(lambda: _disk(folder)[1])

    def looked_up(self, cache: str, hit: bool) -> None:
        """Something was looked for in a cache."""
        self._cache.labels(cache, "hit" if hit else "miss").inc()

    def opened(self, build: Build) -> None:
        """An index answers from this build now, and no longer from another."""
        if before := self._serving.get(build.index):
            self._build_info.remove(before.index, before.id, before.fingerprint)
        self._serving[build.index] = build
        self._build_info.labels(build.index, build.id, build.fingerprint).set(1)
        self._documents.labels(build.index).set(build.documents)

    def loaded(self, index: str, condition: Condition) -> None:
        """A build was opened, to answer an index."""
        self._segments.labels(index).set(condition.segments)
        if condition.size_bytes is not None:
            self._size.labels(index).set(condition.size_bytes)

    def switch_failed(self, index: str, failed: bool) -> None:
        """Whether an index cannot answer from what is published."""
        self._switch_failed.labels(index).set(failed)

    def store_away(self, index: str, away: bool) -> None:
        """Whether the store of an index does not answer."""
        self._store_away.labels(index).set(away)

    def written(self, index: str, kind: str) -> None:
        """A document was put or deleted."""
        self._writes.labels(index, kind).inc()

    def embedded(self, role: str, texts: int) -> None:
        """Texts were encoded for a caller who wanted their vectors."""
        self._embedded.labels(role).inc(texts)

    def requested(self, mode: str, status: int) -> None:
        """A search was answered, with whatever status."""
        self._requests.labels(mode, status).inc()

    def answered(self, seconds: float) -> None:
        """A search was answered 200, so long after its request."""
        self._answered.observe(seconds)

    def searched(self, index: str, took: Mapping[str, float], *, batch: int, truncated: bool, found: bool) -> None:
        """A search ran to its end; `took` in seconds by stage, `batch` 0 when nothing was encoded for it."""
        for stage, seconds in took.items():
            self._stages.labels(stage).observe(seconds)
        if batch:
            self._batch_size.observe(batch)
        self._truncated.inc(truncated)
        self._zero_results.labels(index).inc(not found)

    def serve(self, host: str, port: int) -> tuple[WSGIServer, Thread]:
        """Serve them in a thread, at any path of that address; OSError when it is taken."""
        return start_http_server(port, addr=host, registry=self._registry)

    def text(self) -> bytes:
        """The exposition format that Prometheus scrapes."""
        return generate_latest(self._registry)


def _disk(folder: Path) -> tuple[float, float]:
    """Bytes that are left, and bytes in all."""
    try:
        usage = shutil.disk_usage(folder)
    except OSError:
        return math.nan, math.nan
    return usage.free, usage.total
