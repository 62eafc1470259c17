"""How many terms to keep, answered after the fact: one model's vectors cut to k, without another training.

    python -m runs.truncate model/pretrained docs/figures/data/truncation.json BEIR/scifact:test BEIR/cranfield:test

Every text is encoded once. Quality is by exact scores (`indexer.exact`), time by searches of embedded indexes that hold
the documents of all collections given. One k is varied at a time, around the artifact's own.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from indexer.measures import MEASURES, judge
from model.artifact import Artifact
from model.encoder import Encoder
from model.estimate import Estimate, estimate
from model.vector import FusedVector
from runs.judged_vectors import JudgedVectors, Vectors, read_judged, truncate
from runs.results import Row, Truncation, facts, mean_of, write
from runs.retrieval_time import Builds, Way, encode_times, search_times

K_DOCUMENT = (32, 64, 96, 128, 192, 256, 384)
K_QUERY: tuple[int | None, ...] = (8, 16, 32, 64, 128, None)
"""None: every term that the query has."""

NDCG = list(MEASURES).index("nDCG@10")

ENOUGH = 5000
"""Points below which times say little."""

DENSE_BYTES, TERM_BYTES = 4, 4 + 4
"""float32; a term is its id and its weight."""


class Cost(NamedTuple):
    """Terms and bytes, means over texts."""

    document_terms: float
    query_terms: float
    document_bytes: float


def main() -> None:
    """Measure and write."""
    arguments = _arguments()
    encoder = Encoder(Artifact.open(arguments.artifact), threads=arguments.threads)
    judged = [read_judged(source, encoder, arguments.cache) for source in arguments.collections]
    result = measure(encoder, judged, time_queries=arguments.time_queries, rounds=arguments.rounds)
    write(result, arguments.out)
    print("\n".join(table(result)))
    if result.rounds and result.indexed < ENOUGH:
        print(f"{result.indexed:,} points are few: times of fewer than {ENOUGH:,} say little", file=sys.stderr)


def measure(encoder: Encoder, judged: Sequence[JudgedVectors], *, time_queries: int, rounds: int) -> Truncation:
    """Quality, bytes and time of every way; no time is measured for `rounds` 0."""
    manifest = encoder.artifact.manifest
    ways = list(ways_around(Way("fused", manifest.k_document, manifest.k_query)))
    values = {of.name: _ndcg(of, ways) for of in judged}
    documents = {f"{of.name} {id}": vector for of in judged for id, vector in of.documents.items()}
    queries = {f"{of.name} {id}": vector for of in judged for id, vector in of.queries.items()}
    texts = {f"{of.name} {id}": of.texts[id] for of in judged for id in of.queries}
    result = Truncation(
        **facts(encoder),
        queries={of.name: len(of.qrels) for of in judged},
        documents={of.name: len(of.documents) for of in judged},
        indexed=len(documents),
        rows=[_row(way, values, number, cost(way, documents, queries)) for number, way in enumerate(ways)],
    )
    if rounds:
        chosen = list(queries)[:: max(1, len(queries) // time_queries)][:time_queries]
        result.timed_queries, result.rounds = len(chosen), rounds
        result.encode_ms = encode_times(encoder.encode_queries, [texts[id] for id in chosen])
        _time(result.rows, ways, documents, [queries[id] for id in chosen], rounds)
    return result


def _time(
    rows: Sequence[Row], ways: Sequence[Way], documents: Vectors, queries: Sequence[FusedVector], rounds: int
) -> None:
    """Fill in what an index of all documents takes."""
    with tempfile.TemporaryDirectory() as folder, Builds(documents, Path(folder)) as builds:
        times = search_times(builds, queries, ways, rounds)
        for way, row in zip(ways, rows, strict=True):
            row.search_ms = times[way]
            row.disk_bytes = builds.disk_bytes(way.k_document) if way.mode == "fused" else None


def ways_around(default: Way) -> Iterator[Way]:
    """The default, every other k of documents, every other k of queries, and each side alone."""
    yield default
    for k_document in K_DOCUMENT:
        if k_document != default.k_document:
            yield default._replace(k_document=k_document)
    for k_query in K_QUERY:
        if k_query != default.k_query:
            yield default._replace(k_query=k_query)
    yield default._replace(mode="cls")
    yield default._replace(mode="ot")


def cost(way: Way, documents: Vectors, queries: Vectors) -> Cost:
    """What a way keeps; a side that does not rank is not counted."""
    dense = 0 if way.mode == "ot" else len(next(iter(documents.values())).cls)
    if way.mode == "cls":
        return Cost(0, 0, DENSE_BYTES * dense)
    terms = _mean_terms(documents, way.k_document)
    return Cost(terms, _mean_terms(queries, way.k_query), DENSE_BYTES * dense + TERM_BYTES * terms)


def table(result: Truncation) -> Iterator[str]:
    """The rows for people."""
    yield f"{result.model} ({result.precision}, {result.fingerprint[:12]}), {result.machine}; {result.indexed:,} points"
    head = f"{'':6} {'k_doc':>5} {'k_qry':>5} {'bytes':>6} {'disk':>6}"
    yield f"{head}  {'nDCG@10, mean':22} {'minus default':24} {'ms, p95, CPU':>17}"
    for row in result.rows:
        k = ["-" if k is None else "all" if k == 0 else str(k) for k in (row.k_document, row.k_query)]
        disk = f"{row.disk_bytes:.0f}" if row.disk_bytes else "-"
        ms = "{median:.2f} {p95:.2f} {processor:.2f}".format(**row.search_ms.model_dump()) if row.search_ms else "-"
        mean, minus = (_interval(each) for each in (row.mean_ndcg, row.mean_minus_default))
        name = row.ranking + "*" * row.is_default
        yield f"{name:6} {k[0]:>5} {k[1]:>5} {row.document_bytes:6.0f} {disk:>6}  {mean:22} {minus:24} {ms:>17}"


def _ndcg(judged: JudgedVectors, ways: Sequence[Way]) -> NDArray[np.float64]:
    """nDCG@10 of every query, (queries, ways)."""
    column: dict[Way, NDArray[np.float64]] = {}
    for k_document in dict.fromkeys(way.k_document for way in ways):
        ranker = judged.ranker(k_document)
        for k_query in dict.fromkeys(way.k_query for way in ways if way.k_document == k_document):
            runs = ranker.runs({id: truncate(vector, k_query) for id, vector in judged.queries.items()})
            for way in ways:
                if (way.k_document, way.k_query) == (k_document, k_query):
                    column[way] = judge(judged.qrels, runs[way.mode])[:, NDCG]
    return np.stack([column[way] for way in ways], axis=1)


def _row(way: Way, values: Mapping[str, NDArray[np.float64]], number: int, cost: Cost) -> Row:
    """The `number`th of the ways, the first of which is the default."""
    pairs = {
        name: estimate(np.stack([each[:, number], each[:, number] - each[:, 0]], axis=1))
        for name, each in values.items()
    }
    return Row(
        ranking=way.mode,
        k_document=None if way.mode == "cls" else way.k_document,
        k_query=None if way.mode == "cls" else way.k_query or 0,
        is_default=number == 0,
        **cost._asdict(),
        ndcg={name: ndcg for name, (ndcg, _) in pairs.items()},
        minus_default={name: minus for name, (_, minus) in pairs.items()},
        mean_ndcg=mean_of(ndcg for ndcg, _ in pairs.values()),
        mean_minus_default=mean_of(minus for _, minus in pairs.values()),
    )


def _mean_terms(vectors: Vectors, k: int | None) -> float:
    return float(np.mean([len(truncate(vector, k).ot_values) for vector in vectors.values()]))


def _interval(each: Estimate) -> str:
    return (
        f"{each.mean:+.4f} [{each.low:+.4f}, {each.high:+.4f}]"
        if each.low < 0
        else f"{each.mean:.4f} [{each.low:.4f}, {each.high:.4f}]"
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifact", type=Path)
    parser.add_argument("out", type=Path, help="JSON file")
    parser.add_argument("collections", nargs="+", help="BEIR folder, or folder:split; test unless named")
    parser.add_argument("--cache", type=Path, help="folder in which vectors are kept for the next time")
    parser.add_argument("--threads", type=int, default=1, help="of the encoder")
    parser.add_argument("--rounds", type=int, default=3, help="how often each query is timed; 0 times nothing")
    parser.add_argument("--time-queries", type=int, default=200, help="queries to time, of all collections alike")
    return parser.parse_args()


if __name__ == "__main__":
    main()
