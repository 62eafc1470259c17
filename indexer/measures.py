"""How good rankings are: measures per query from `ir-measures`, and the TREC files that other tools read."""

from collections.abc import Mapping
from pathlib import Path

import ir_measures
import numpy as np
from ir_measures import RR, R, nDCG
from numpy.typing import NDArray

from model.lines import SourceError

Qrels = Mapping[str, Mapping[str, int]]
Run = Mapping[str, Mapping[str, float]]
"""Score by document id by query id."""

MEASURES = {"nDCG@10": nDCG @ 10, "MRR@10": RR @ 10, "Recall@100": R @ 100}
"""By the names that papers use."""


def judge(qrels: Qrels, run: Run) -> NDArray[np.float64]:
    """Every measure of every judged query, (queries, measures); a query without an answer has 0 in all."""
    row = {query: number for number, query in enumerate(qrels)}
    column = {measure: number for number, measure in enumerate(MEASURES.values())}
    values = np.zeros((len(row), len(column)))
    for metric in ir_measures.iter_calc(list(column), qrels, run):
        values[row[metric.query_id], column[metric.measure]] = metric.value
    return values


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
