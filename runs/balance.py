"""How the two sides share a score: what CLS and OT add to the passage that is right, and to the best one that is not.

    python -m runs.balance model/pretrained docs/figures/data/balance.json BEIR/scifact:test BEIR/fairytaleqa:test

Exact scores of all documents, the artifact's own k. The wrong passage is the one with the best fused score among those
that nobody judged right: the one that the sum of both sides likes most, which is hardest on the sum itself. A passage
that is not judged need not be wrong.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from model.artifact import Artifact
from model.encoder import Encoder
from model.estimate import Estimate, estimate
from model.vector import Parts
from runs.judged_vectors import JudgedVectors, read_judged, truncate
from runs.results import Balance, CollectionBalance, Histogram, SideBalance, facts, write

BINS = 25
SHARES = np.linspace(0, 1, BINS + 1)


class Contest(NamedTuple):
    """Both parts of the scores of the two passages of one query."""

    right: Parts
    wrong: Parts


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifact", type=Path)
    parser.add_argument("out", type=Path, help="JSON file")
    parser.add_argument("collections", nargs="+", help="BEIR folder, or folder:split; test unless named")
    parser.add_argument("--cache", type=Path, help="folder in which vectors are kept for the next time")
    parser.add_argument("--threads", type=int, default=1, help="of the encoder")
    arguments = parser.parse_args()
    encoder = Encoder(Artifact.open(arguments.artifact), threads=arguments.threads)
    judged = [read_judged(source, encoder, arguments.cache) for source in arguments.collections]
    result = measure(encoder, judged)
    write(result, arguments.out)
    print("\n".join(table(result)))


def measure(encoder: Encoder, judged: Sequence[JudgedVectors]) -> Balance:
    """All collections; their histograms of a part have the same edges."""
    manifest = encoder.artifact.manifest
    contests = {of.name: list(contests_of(of, manifest.k_query, manifest.k_document)) for of in judged}
    every = np.array([contest for each in contests.values() for contest in each])  # (queries, right and wrong, parts)
    low, high = np.quantile(every.reshape(-1, 2), [0.001, 0.999], axis=0)
    edges = [np.linspace(low[side], high[side], BINS + 1) for side in (0, 1)]
    collections = {name: summarize(np.array(each), *edges) for name, each in contests.items()}
    return Balance(**facts(encoder), collections=collections)


def contests_of(judged: JudgedVectors, k_query: int, k_document: int) -> Iterator[Contest]:
    """One for each query with a vector, with a passage that was judged right and with one that was not."""
    ranker = judged.ranker(k_document)
    for id, query in judged.queries.items():
        is_right = np.array([judged.qrels[id].get(document, 0) > 0 for document in ranker.ids])
        if is_right.any() and not is_right.all():
            cls, ot = ranker.parts(truncate(query, k_query))
            best = [int(np.where(among, cls + ot, -np.inf).argmax()) for among in (is_right, ~is_right)]
            yield Contest(*(Parts(float(cls[row]), float(ot[row])) for row in best))


def summarize(contests: NDArray[np.float64], *edges: NDArray[np.float64]) -> CollectionBalance:
    """Distributions and shares.

    Args:
        contests: (queries, 2, 2): of the right and the wrong passage, the CLS and the OT part.
        edges: Of the histograms of a part, for CLS and for OT.
    """
    right, wrong = contests[:, 0], contests[:, 1]
    share = right[:, 0] / right.sum(axis=1)
    mean_share, agrees, cls, ot = estimate(
        np.column_stack([share, right.sum(axis=1) > wrong.sum(axis=1), right > wrong]).astype(np.float64)
    )
    sides = [
        SideBalance(right=histogram(right[:, n], edges[n]), wrong=histogram(wrong[:, n], edges[n]), agrees=each)
        for n, each in enumerate((cls, ot))
    ]
    return CollectionBalance(
        queries=len(contests),
        share=histogram(share, SHARES),
        mean_share=mean_share,
        agrees=agrees,
        cls=sides[0],
        ot=sides[1],
    )


def histogram(values: NDArray[np.float64], edges: NDArray[np.float64]) -> Histogram:
    """
    >>> histogram(np.array([-1, 0.2, 0.7, 0.8]), np.array([0, 0.5, 1])).counts
    [2, 2]
    """
    counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
    return Histogram(edges=edges.tolist(), counts=counts.tolist())


def table(result: Balance) -> Iterator[str]:
    """The shares for people."""
    yield f"{result.model} ({result.precision}, {result.fingerprint[:12]}); mean [95 % interval]"
    yield f"{'':28} {'queries':>7} {'share of CLS':20} {'right first: fused':20} {'by CLS alone':20} {'by OT alone':20}"
    for name, each in result.collections.items():
        estimates = (each.mean_share, each.agrees, each.cls.agrees, each.ot.agrees)
        yield f"{name:28} {each.queries:>7,} " + " ".join(f"{_interval(one):20}" for one in estimates)


def _interval(each: Estimate) -> str:
    return f"{each.mean:.3f} [{each.low:.3f}, {each.high:.3f}]"


if __name__ == "__main__":
    main()
