"""Whether what people ask, and what the model makes of it, moves away from what it was.

Distributions only, taken from what a search computes anyway: they cost microseconds and hold no text. What is normal is
not known here, so they are to be compared with themselves, a week ago. A search that was remembered is in none of them,
nor is a later page of one.
"""

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Histogram

from indexer.store import Hit, Mode
from model.encoder import Encoding

TOKENS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64, 128, 256, 512)
TERMS = (1, 2, 4, 8, 12, 16, 20, 24, 28, 32, 48, 64, 128)
SCORE = tuple(0.25 * 2 ** (step / 2) for step in range(19))
"""Buckets of a score, .25 to 128 by steps of a square root of two: a score has no unit but its model's."""

SHARE = tuple(step / 10 for step in range(1, 11))


class Drift:
    """The metrics of one app's queries and of their best results."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._tokens = Histogram(
            "dupmae_query_tokens",
            "Tokens of a query before it was cut.",
            ["index"],
            buckets=TOKENS,
            registry=registry,
        )
        self._unknown = Counter(
            "dupmae_query_unknown_tokens", "Tokens of queries that the vocabulary lacks.", ["index"], registry=registry
        )
        self._terms = Histogram(
            "dupmae_query_terms",
            "Words that the model weighed for a query, at most the artifact's k_query.",
            ["index"],
            buckets=TERMS,
            registry=registry,
        )
        self._score = Histogram(
            "dupmae_top_score",
            "Score of the best result in mode fused, in the model's own unit.",
            ["index"],
            buckets=SCORE,
            registry=registry,
        )
        self._ot_share = Histogram(
            "dupmae_top_ot_share",
            "Share of that score that words (OT) gave; [CLS] gave the rest.",
            ["index"],
            buckets=SHARE,
            registry=registry,
        )

    def searched(self, index: str, query: Encoding, mode: Mode, hits: Sequence[Hit]) -> None:
        """A query was answered with its first page."""
        self._tokens.labels(index).observe(query.tokens)
        self._unknown.labels(index).inc(query.unknown)
        self._terms.labels(index).observe(len(query.vector.ot_indices))
        if hits and mode == "fused":
            self._score.labels(index).observe(hits[0].score)
            self._ot_share.labels(index).observe(hits[0].parts.ot_share)
