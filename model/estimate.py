"""Means over queries, and how sure they are: intervals from a paired bootstrap.

Paired means that all systems are resampled with the same queries, so that a difference between two systems is not
drowned by the difference between easy and hard queries.
"""

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel


class Estimate(BaseModel):
    """A mean over queries, and the bounds between which 95 % of the resampled means lie."""

    mean: float
    low: float
    high: float


def estimate(values: NDArray[np.float64], *, resamples: int = 2000, seed: int = 0) -> list[Estimate]:
    """Means and 95 % percentile bootstrap intervals.

    Args:
        values: (queries, columns); every column sees the same resampled queries.
        resamples: How often the queries are drawn anew, with replacement.
        seed: Of the draws.

    Returns:
        One estimate per column.
    """
    queries = len(values)
    drawn = np.random.default_rng(seed).multinomial(queries, np.full(queries, 1 / queries), size=resamples)
    low, high = np.quantile(drawn @ values / queries, [0.025, 0.975], axis=0)
    return [Estimate(mean=m, low=lo, high=hi) for m, lo, hi in zip(values.mean(axis=0), low, high, strict=True)]
