"""What each preset of `dupmae index build` costs on the embedded engine: bytes, RAM, overlap with brute force, time.

    python bench/presets.py                                       # 20,000 random points, as bench/candidate_depth.py
    python bench/presets.py --more hnsw_m=32,quantization=int8    # one more row: the laptop's with these over it

Each layout is built in a folder of its own and searched by a fresh process, which reports what it grew by.
"""

import multiprocessing
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
from candidate_depth import BATCH, DENSE_DIM, TOP, Truth, random_vector
from record import parser_of, write

from indexer.collection import PRESETS, CollectionOptions, parse_options
from indexer.edge import EdgeEngine
from indexer.points import point_id
from indexer.store import Build, Point
from model.vector import FusedVector

TEXT = "".join(chr(97 + i * 7 % 26) for i in range(1_000))


class Found(NamedTuple):
    """What the searching process saw: ids of each mode, milliseconds a query, and MB it grew by."""

    fused: list[list[str]]
    cls: list[list[str]]
    ms: float
    memory_mb: float


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--points", type=int, default=20_000)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--more", action="append", default=[], help="KEY=VALUE,... over the preset laptop")
    arguments = parser.parse_args()
    points = [Point(point_id(str(n)), random_vector(128), {"text": TEXT}) for n in range(arguments.points)]
    queries = [random_vector(32) for _ in range(arguments.queries)]
    truth = Truth(points)
    fused = [truth.top(query) for query in queries]
    cls = [dense_top(truth, query) for query in queries]
    layouts = {name: options for name, options in PRESETS.items() if not options.server_only}
    layouts |= {more: parse_options("laptop", more.split(",")) for more in arguments.more}
    print(f"{len(points):,} points, {len(queries)} queries, {DENSE_DIM} dimensions, 128 terms")
    print(
        "| layout | bytes on disk a point | RAM grown by, MB | overlap@10, fused | cls | ms a query, fused | build, s |"
    )
    print("|---|---|---|---|---|---|---|")
    rows = []
    for name, options in layouts.items():
        with tempfile.TemporaryDirectory() as folder:
            seconds = make(Path(folder), points, options)
            size = sum(path.stat().st_blocks * 512 for path in Path(folder).rglob("*"))
            with multiprocessing.get_context("spawn").Pool(1) as fresh:
                found = fresh.apply(search, (Path(folder), queries))
        shown = [f"{size / len(points):,.0f}", f"{found.memory_mb:.0f}", overlap(found.fused, fused)]
        shown += [overlap(found.cls, cls), f"{found.ms:.1f}", f"{seconds:.0f}"]
        print(f"| {name} | {' | '.join(shown)} |", flush=True)
        rows.append({"layout": name, "bytes": size / len(points), "memory_mb": found.memory_mb, "ms": found.ms})
        rows[-1] |= {"overlap": float(overlap(found.fused, fused)), "overlap_cls": float(overlap(found.cls, cls))}
        rows[-1]["build_s"] = seconds
    write(arguments.json, rows)


def make(folder: Path, points: Sequence[Point], options: CollectionOptions) -> float:
    build = Build(id="b", index="b", fingerprint="", dense_dim=DENSE_DIM, created=datetime.now(UTC), collection=options)
    began = time.perf_counter()
    with closing(EdgeEngine(folder).create(build)) as store:
        for start in range(0, len(points), BATCH):
            store.upsert(points[start : start + BATCH])
        store.optimize()
    return time.perf_counter() - began


def search(folder: Path, queries: Sequence[FusedVector]) -> Found:
    before = resident_mb()
    with closing(EdgeEngine(folder).open("b", "b")) as store:
        store.search(queries[0])
        began = time.perf_counter()
        fused = [[hit.point.id for hit in store.search(query, limit=TOP)] for query in queries]
        ms = 1000 * (time.perf_counter() - began) / len(queries)
        cls = [[hit.point.id for hit in store.search(query, mode="cls", limit=TOP)] for query in queries]
        return Found(fused, cls, ms, resident_mb() - before)


def dense_top(truth: Truth, query: FusedVector) -> list[str]:
    scores = truth.cls.astype(np.float64) @ query.cls
    return [truth.ids[i] for i in np.argsort(-scores)[:TOP]]


def overlap(found: list[list[str]], expected: list[list[str]]) -> str:
    return f"{np.mean([len(set(a) & set(b)) / TOP for a, b in zip(found, expected, strict=True)]):.4f}"


def resident_mb() -> float:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    main()
