"""One query at several sizes, engine by engine: median and 99th percentile, and overlap with brute force.

    DUPMAE_DATA=.dupmae python bench/retrieval.py --index demo [--sizes 1000 10000 100000]

The points are made of an index's own, so that sizes have no limit and vectors and words are distributed as in text:
each is the mean of two documents, and half of the terms of either. Queries are beginnings of documents, encoded by the
index's model. Engines take turns, each with all queries, so that what one leaves in the caches is not another's loss: a
million points scanned by brute force are what no service does between two searches. For the same reason the embedded
engine has a process of its own, which holds the index and not the points that it was made of. `cpu` is the processor's
time of a query, all threads counted, which does not grow with what else a machine does.

- `embedded`: the engine of `dupmae serve` by default (qdrant-edge), in each mode; the fused score is exact.
- `brute force`: numpy over all vectors, the truth that overlap is measured against.
- `local mode`: `qdrant-client` without a server, the same request; to 2,000 points, since it scans in Python.
- `bm25s`: words only, over texts made the same way; no overlap, since it ranks by another score.

A Qdrant server is none of them: none was at hand.
"""

import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from candidate_depth import TOP, Truth
from record import parser_of, picture, write

from indexer.edge import EdgeEngine
from indexer.points import point_id
from indexer.store import Build, Mode, Point, Store
from model.vector import FusedVector
from service import settings
from service.searcher import Searcher, open_searchers

INDEX = BUILD = "made"
BATCH = 1_000
ROUNDS = 3
LOCAL_MODE = 2_000
MODES: tuple[Mode, ...] = ("fused", "cls", "ot", "rrf")
QUERY_WORDS = 6
COLUMNS = ("points", "engine", "p50, ms", "p99, ms", "cpu, ms", f"overlap@{TOP}", "bytes on disk a point", "build, s")


class Query(NamedTuple):
    text: str
    vector: FusedVector


class Asked(NamedTuple):
    """What became of the queries, one by one: milliseconds by the clock and of the processor, and the ids found."""

    ms: list[float]
    cpu_ms: list[float]
    found: list[Sequence[str]]


Ask = Callable[[Query], Sequence[str]]
"""Asks one engine: the ids that it finds, best first, or none where they mean nothing."""

Turn = Callable[[], Asked]
"""Asks one engine all queries."""


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--index", default="demo")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--queries", type=int, default=200)
    given = parser.parse_args()
    with open_searchers(settings.load()) as searchers:
        searcher = searchers.open(given.index)
        sources = list(searcher.store.scroll())
        queries = queries_of(searcher, sources, given.queries)
    print(f"made of {len(sources):,} points of index {given.index!r}, {len(queries)} queries\n")
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    rows: list[dict[str, Any]] = []
    for size in given.sizes:
        for row in measured(list(mixtures(sources, size)), queries):
            rows.append(row)
            times = [f"{row[key]:.2f}" for key in ("p50_ms", "p99_ms", "cpu_ms")]
            rest = ["" if row[key] is None else f"{row[key]:,}" for key in ("overlap", "bytes", "build_s")]
            print(f"| {' | '.join([format(row['points'], ','), row['engine'], *times, *rest])} |", flush=True)
    write(given.json, rows, [picture("Retrieval, p50", "points", "ms", curves(rows), log=True)])


def measured(points: Sequence[Point], queries: Sequence[Query]) -> Iterator[dict[str, Any]]:
    """A row for each engine that holds these points."""
    truth = Truth(points)
    expected = [truth.top(query.vector) for query in queries]
    with tempfile.TemporaryDirectory() as folder, ExitStack() as opened:
        began = time.perf_counter()
        filled(EdgeEngine(Path(folder)).create(facts(points)), points).close()
        build_s = round(time.perf_counter() - began, 1)
        size = sum(path.stat().st_blocks * 512 for path in Path(folder).rglob("*")) // len(points)
        embedded = opened.enter_context(apart(Path(folder), queries))
        engines: dict[str, Turn] = {f"embedded, {mode}": partial(embedded, mode) for mode in MODES}
        engines["brute force (numpy)"] = partial(asked, lambda query: truth.top(query.vector), queries)
        if len(points) <= LOCAL_MODE:
            engines["local mode (qdrant-client), fused"] = partial(asked, asking(local_mode(points), "fused"), queries)
        if bm25 := bm25_of(points):
            engines["words only (bm25s)"] = partial(asked, bm25, queries)
        for name, (took, cpu, found) in in_turns(engines).items():
            fused = name.endswith("fused") or name.startswith("brute")
            yield {
                "points": len(points),
                "engine": name,
                "p50_ms": round(statistics.median(took), 3),
                "p99_ms": round(float(np.percentile(took, 99)), 3),
                "cpu_ms": round(statistics.median(cpu), 3),
                "overlap": round(overlap(found, expected), 4) if fused else None,
                "bytes": size if name == "embedded, fused" else None,
                "build_s": build_s if name == "embedded, fused" else None,
            }


def in_turns(engines: Mapping[str, Turn]) -> dict[str, Asked]:
    """Each engine gets all queries before the next one does, `ROUNDS` times; what it finds is kept once."""
    outcomes = {name: turn() for name, turn in engines.items()}
    for _ in range(1, ROUNDS):
        for name, turn in engines.items():
            again = turn()
            outcomes[name].ms.extend(again.ms)
            outcomes[name].cpu_ms.extend(again.cpu_ms)
    return outcomes


def asked(ask: Ask, queries: Sequence[Query]) -> Asked:
    outcome = Asked([], [], [])
    ask(queries[0])
    for query in queries:
        began, used = time.perf_counter(), time.process_time()
        outcome.found.append(ask(query))
        outcome.ms.append(1000 * (time.perf_counter() - began))
        outcome.cpu_ms.append(1000 * (time.process_time() - used))
    return outcome


@contextmanager
def apart(folder: Path, queries: Sequence[Query]) -> Iterator[Callable[[Mode], Asked]]:
    """The embedded build in another process, which is told a mode and asks all queries."""
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(theirs, folder, queries), daemon=True)
    process.start()
    theirs.close()  # so that a process which has failed ends the waiting

    def ask(mode: Mode) -> Asked:
        ours.send(mode)
        answer: Asked = ours.recv()
        return answer

    yield ask
    ours.send(None)
    process.join()


def serve(pipe: Connection, folder: Path, queries: Sequence[Query]) -> None:
    """Answers each mode until there is none."""
    with closing(EdgeEngine(folder).open(INDEX, BUILD)) as store:
        while mode := pipe.recv():
            pipe.send(asked(asking(store, mode), queries))


def asking(store: Store, mode: Mode) -> Ask:
    return lambda query: [hit.point.id for hit in store.search(query.vector, mode=mode, limit=TOP)]


def overlap(found: Sequence[Sequence[str]], expected: Sequence[Sequence[str]]) -> float:
    return float(np.mean([len(set(a) & set(b)) / len(b) for a, b in zip(found, expected, strict=True)]))


def queries_of(searcher: Searcher, points: Sequence[Point], count: int) -> list[Query]:
    """Beginnings of texts, always the same."""
    texts = (" ".join(str(point.payload.get("text", "")).split()[:QUERY_WORDS]) for point in points)
    usable = sorted({text for text in texts if len(text.split()) == QUERY_WORDS})
    drawn = [str(text) for text in np.random.default_rng(1).permutation(usable)]
    vectors = (searcher.encode(text).vector for text in drawn)
    return [Query(text, vector) for text, vector in islice(zip(drawn, vectors, strict=True), count)]


def mixtures(sources: Sequence[Point], size: int) -> Iterator[Point]:
    """Points that are each made of two others."""
    random = np.random.default_rng(2)
    for number, (a, b) in enumerate(random.integers(len(sources), size=(size, 2))):
        first, second = sources[a], sources[b]
        words = {**terms(first.vector, random), **terms(second.vector, random)}
        indices = np.array(sorted(words), np.int64)
        values = np.array([words[index] for index in indices.tolist()], np.float32)
        cls = (first.vector.cls + second.vector.cls) / np.float32(2)
        yield Point(point_id(str(number)), FusedVector(cls, indices, values), {"text": halves(first, second)})


def terms(vector: FusedVector, random: np.random.Generator) -> dict[int, float]:
    """Half of a vector's words, at least one."""
    size = vector.ot_indices.size
    kept = random.choice(size, max(1, size // 2), replace=False)
    return dict(zip(vector.ot_indices[kept].tolist(), vector.ot_values[kept].tolist(), strict=True))


def halves(first: Point, second: Point) -> str:
    texts = [str(point.payload.get("text", "")).split() for point in (first, second)]
    return " ".join(word for words in texts for word in words[: max(1, len(words) // 2)])


def facts(points: Sequence[Point]) -> Build:
    return Build(id=BUILD, index=INDEX, fingerprint="", dense_dim=points[0].vector.cls.size, created=datetime.now(UTC))


def filled(store: Store, points: Sequence[Point]) -> Store:
    for start in range(0, len(points), BATCH):
        store.upsert(points[start : start + BATCH])
        if store.ripe():
            store.optimize()
    store.optimize()
    return store


def local_mode(points: Sequence[Point]) -> Store:
    from qdrant_client import QdrantClient

    from indexer.qdrant import QdrantEngine

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Payload indexes have no effect")
        return filled(QdrantEngine(QdrantClient(":memory:")).create(facts(points)), points)


def bm25_of(points: Sequence[Point]) -> Ask | None:
    """None where its library is missing; `pip install 'dupmae-search[eval]'`."""
    try:
        from indexer.bm25 import Bm25
    except ImportError:
        return None
    ranked = Bm25(str(point.payload["text"]) for point in points)
    return lambda query: [points[hit.row].id for hit in ranked.search([query.text], TOP)[0]]


def curves(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[tuple[float | str, float]]]:
    names = dict.fromkeys(str(row["engine"]) for row in rows)
    return {name: [(row["points"], row["p50_ms"]) for row in rows if row["engine"] == name] for name in names}


if __name__ == "__main__":
    main()
