"""How good rankings are: measures per query from `ir-measures`, and intervals from a paired bootstrap.

Paired means that all systems are resampled with the same queries, so that a difference between two systems is not
drowned by the difference between easy and hard queries.
"""

from collections.abc import Mapping
from pathlib import Path

import ir_measures
import numpy as np
from ir_measures import RR, R, nDCG
from numpy.typing import NDArray
from pydantic import BaseModel

from model.lines import SourceError

Qrels = Mapping[str, Mapping[str, int]]
Run = Mapping[str, Mapping[str, float]]
"""Score by document id by query id."""

MEASURES = {"nDCG@10": nDCG @ 10, "MRR@10": RR @ 10, "Recall@100": R @ 100}
"""By the names that papers use."""


class Estimate(BaseModel):
    """A mean over queries, and the bounds between which 95 % of the resampled means lie."""

    mean: float
    low: float
    high: float


def judge(qrels: Qrels, run: Run) -> NDArray[np.float64]:
    """Every measure of every judged query, (queries, measures); a query without an answer has 0 in all."""
    row = {query: number for number, query in enumerate(qrels)}
    column = {measure: number for number, measure in enumerate(MEASURES.values())}
    values = np.zeros((len(row), len(column)))
    for metric in ir_measures.iter_calc(list(column), qrels, run):
        values[row[metric.query_id], column[metric.measure]] = metric.value
    return values


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


def write_run(run: Run, path: Path, tag: str) -> None:
    """Write a TREC run file: `query Q0 document rank score tag`, best first.

    Raises:
        SourceError: An id holds white space, which the format has no way to write.
    """
    with path.open("w", encoding="utf-8") as file:
        for query, scores in run.items():
            ranked = sorted(scores.items(), key=lambda item: (-item[1], item[0]))
            for rank, (document, score) in enumerate(ranked, start=1):
                if len(f"{query} {document}".split()) != 2:
                    raise SourceError(f"{path}: ids of a TREC run cannot hold white space: {query!r}, {document!r}")
                print(query, "Q0", document, rank, repr(float(score)), tag, file=file)
