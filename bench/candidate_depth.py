"""How deep each side of a fused query must go for the true top 10: overlap and time by depth.

    python bench/candidate_depth.py                                             # random vectors
    python bench/candidate_depth.py --data .dupmae --queries beir/scifact       # an index and its judged queries

The truth is the fused score of the query with every stored vector, in order of (-score, id).
"""

import argparse
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from record import parser_of, picture, write

from indexer.documents import load_queries
from indexer.edge import EdgeEngine
from indexer.points import point_id
from indexer.store import Build, Point, Store
from model.artifact import Artifact
from model.encoder import Encoder
from model.vector import FusedVector

DEPTHS = (10, 20, 50, 100, 200, 400)
TOP = 10
BATCH = 256
DENSE_DIM = 384
VOCABULARY = 30_522
ZIPF = 1 / np.arange(1, VOCABULARY + 1)
RANDOM = np.random.default_rng(1)


class Truth:
    """Every stored vector in memory, scored at once."""

    def __init__(self, points: Sequence[Point]) -> None:
        self.ids = [point.id for point in points]
        self.cls = np.stack([point.vector.cls for point in points])
        words = np.concatenate([point.vector.ot_indices for point in points])
        by_word = np.argsort(words, kind="stable")
        sizes = [point.vector.ot_indices.size for point in points]
        self.words = words[by_word]
        self.holders = np.repeat(np.arange(len(points)), sizes)[by_word]
        self.values = np.concatenate([point.vector.ot_values for point in points])[by_word]

    def top(self, query: FusedVector) -> list[str]:
        """Ids of the best `TOP` points."""
        scores = self.cls.astype(np.float64) @ query.cls
        starts, ends = (np.searchsorted(self.words, query.ot_indices, side) for side in ("left", "right"))
        for start, end, value in zip(starts, ends, query.ot_values, strict=True):
            scores[self.holders[start:end]] += np.float64(value) * self.values[start:end]
        near = np.flatnonzero(scores >= np.sort(scores)[-TOP])
        return [self.ids[i] for i in sorted(near, key=lambda i: (-scores[i], self.ids[i]))][:TOP]


def main() -> None:
    arguments = parse_arguments()
    with opened_store(arguments) as store:
        points = list(store.scroll())
        queries = read_queries(arguments, store) or [random_vector(32) for _ in range(arguments.count)]
        truth = Truth(points)
        expected = [truth.top(query) for query in queries]
        print(f"{len(points):,} points, {len(queries)} queries, {points[0].vector.cls.size} dimensions")
        print(f"{'depth':>6} {f'overlap@{TOP}':>10} {'same order':>10} {'ms/query':>9}")
        rows = []
        for depth in DEPTHS:
            began = time.perf_counter()
            found = [[hit.point.id for hit in store.search(query, limit=TOP, depth=depth)] for query in queries]
            elapsed_ms = 1000 * (time.perf_counter() - began) / len(queries)
            overlap = np.mean([len(set(a) & set(b)) / len(b) for a, b in zip(found, expected, strict=True)])
            same = np.mean([a == b for a, b in zip(found, expected, strict=True)])
            print(f"{depth:>6} {overlap:>10.4f} {same:>10.4f} {elapsed_ms:>9.2f}")
            rows.append({"depth": depth, "overlap": float(overlap), "same_order": float(same), "ms": elapsed_ms})
    series = {key: [(row["depth"], row[key]) for row in rows] for key in ("overlap", "same_order")}
    title = f"Candidate depth, {len(points):,} points"
    pictures = [picture(title, "candidates of each side", f"of the true top {TOP}", series)]
    pictures.append(
        picture(title, "candidates of each side", "ms a query", {"fused": [(r["depth"], r["ms"]) for r in rows]})
    )
    write(arguments.json, rows, pictures)


def parse_arguments() -> argparse.Namespace:
    parser = parser_of(__doc__)
    parser.add_argument("--data", type=Path, help="data folder with an embedded index; random vectors when unset")
    parser.add_argument("--index", default="default", help="name of the index in --data")
    parser.add_argument("--queries", type=Path, help="BEIR folder whose queries are encoded; needed with --data")
    parser.add_argument("--count", type=int, default=200, help="queries to ask")
    parser.add_argument("--points", type=int, default=20_000, help="random points to make without --data")
    arguments = parser.parse_args()
    if (arguments.data is None) != (arguments.queries is None):
        parser.error("--data and --queries go together")
    return arguments


@contextmanager
def opened_store(arguments: argparse.Namespace) -> Iterator[Store]:
    if arguments.data:
        with closing(EdgeEngine(arguments.data).open(arguments.index)) as store:
            yield store
        return
    with tempfile.TemporaryDirectory() as folder:
        build = Build(id="random", index="random", fingerprint="", dense_dim=DENSE_DIM, created=datetime.now(UTC))
        with closing(EdgeEngine(Path(folder)).create(build)) as store:
            for start in range(0, arguments.points, BATCH):
                numbers = range(start, min(start + BATCH, arguments.points))
                store.upsert([Point(point_id(str(number)), random_vector(128), {}) for number in numbers])
            store.optimize()
            yield store


def read_queries(arguments: argparse.Namespace, store: Store) -> list[FusedVector]:
    """The first judged queries, encoded by the artifact that encoded the build."""
    if not arguments.queries:
        return []
    encoder = Encoder(Artifact.open(arguments.data / "models" / store.build.fingerprint))
    texts = list(load_queries(arguments.queries).values())[: arguments.count]
    return [store.build.weighed(encoding.vector) for encoding in encoder.encode_queries(texts)]


def random_vector(kept: int) -> FusedVector:
    """A unit [CLS] vector and words drawn as in text: a few in nearly every document, most in almost none."""
    cls = RANDOM.normal(size=DENSE_DIM).astype(np.float32)
    words = np.argpartition(RANDOM.exponential(size=VOCABULARY) / ZIPF, kept)[:kept]
    values = RANDOM.gamma(2.0, 0.1, kept).astype(np.float32) + np.float32(1e-3)
    return FusedVector(cls / np.linalg.norm(cls), np.sort(words).astype(np.int64), values)


if __name__ == "__main__":
    main()
