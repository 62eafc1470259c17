"""What Prometheus sees of the probe: what was measured last, the build's own figures, and how rounds ended."""

from collections.abc import Mapping
from contextlib import suppress
from itertools import product
from typing import Literal, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge

from indexer.probe_set import Figures, ProbeSet
from model.estimate import Estimate

Outcome = Literal["complete", "failed", "busy", "switched"]


class ProbeMetrics:
    """The metrics of one app's probes. An index has figures only once a whole round was asked of its build."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._interval = Gauge(
            "dupmae_probe_interval_seconds", "Time over which a round is spread; 0 when it is off.", registry=registry
        )
        self._queries = Gauge(
            "dupmae_probe_queries", "Queries of a round; 0 when the build keeps none.", ["index"], registry=registry
        )
        self._figure = Gauge(
            "dupmae_probe_figure",
            "Mean of the last whole round, 0 to 1: nDCG@10, Recall@10, share of words in the best score.",
            ["index", "measure"],
            registry=registry,
        )
        self._own = Gauge(
            "dupmae_probe_own_figure",
            "The same when the build was published, with the bounds of its 95 % interval.",
            ["index", "measure", "bound"],
            registry=registry,
        )
        self._started = Gauge(
            "dupmae_probe_started_timestamp_seconds",
            "Unix time when the probe of this build began.",
            ["index"],
            registry=registry,
        )
        self._completed = Gauge(
            "dupmae_probe_completed_timestamp_seconds",
            "Unix time of the last whole round of this build.",
            ["index"],
            registry=registry,
        )
        self._rounds = Counter(
            "dupmae_probe_rounds", "Rounds, by how they ended.", ["index", "outcome"], registry=registry
        )

    def spread(self, interval_s: float) -> None:
        """A round takes so long."""
        self._interval.set(interval_s)

    def began(self, index: str, asked: ProbeSet | None) -> None:
        """An index is asked these queries from now on; what was measured of another build is gone."""
        self._forget(index)
        for outcome in get_args(Outcome):
            self._rounds.labels(index, outcome)
        self._queries.labels(index).set(len(asked.queries) if asked else 0)
        if asked:
            self._started.labels(index).set_to_current_time()
            for measure, own in asked.own.items():
                for bound, value in own.model_dump().items():
                    self._own.labels(index, measure, bound).set(value)

    def measured(self, index: str, figures: Mapping[str, float]) -> None:
        """A whole round was asked; `figures` by measure."""
        for measure, figure in figures.items():
            self._figure.labels(index, measure).set(figure)
        self._completed.labels(index).set_to_current_time()

    def ended(self, index: str, outcome: Outcome) -> None:
        """A round ended."""
        self._rounds.labels(index, outcome).inc()

    def _forget(self, index: str) -> None:
        gone: list[tuple[Gauge, tuple[str, ...]]] = [(self._started, (index,)), (self._completed, (index,))]
        gone += [(self._figure, (index, measure)) for measure in Figures._fields]
        gone += [(self._own, (index, *each)) for each in product(Figures._fields, Estimate.model_fields)]
        for gauge, labels in gone:
            with suppress(KeyError):  # older clients raise it where there is nothing to remove
                gauge.remove(*labels)
