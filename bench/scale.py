"""A build at several sizes: rate, peak memory, bytes on disk, time of a query, overlap with brute force.

    python bench/scale.py SOURCE --artifact FOLDER [--sizes 10000 100000 1000000] [--encoders 2]

Each size is a process of its own (`dupmae index build`); the peak is the largest ru_maxrss so far, so give sizes in
ascending order. Queries are the first six words of documents that every size holds.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from itertools import islice
from pathlib import Path

import numpy as np

from indexer.documents import Document
from indexer.edge import EdgeEngine
from indexer.exact import best_scores
from indexer.sources import read_documents
from model.artifact import Artifact
from model.encoder import Encoder

QUERIES = 200
"""Timed; the first 50 of them are held against brute force."""
CHECKED = 50


def build(lines: Path, data: Path, artifact: Path, encoders: int) -> tuple[dict[str, object], float, float]:
    """Facts of the build, seconds, and peak of resident memory in bytes, its encoders' not added."""
    command = [str(Path(sys.executable).with_name("dupmae")), "index", "build", str(lines), "--json", "--no-gate"]
    environment = {**os.environ, "DUPMAE_DATA": str(data)}
    began = time.perf_counter()
    done = subprocess.run(
        [*command, "--artifact", str(artifact), "--encoders", str(encoders), "--max-bad", "1000000"],
        env=environment,
        check=True,
        stdout=subprocess.PIPE,
    )
    seconds = time.perf_counter() - began
    return json.loads(done.stdout), seconds, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024


def on_disk(folder: Path) -> int:
    """Bytes in blocks: the engine's files have holes."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


def drawn(source: Path, first: int) -> list[str]:
    """Queries: the first words of `QUERIES` documents, which every size holds."""
    documents = islice((record for record in read_documents([source]) if isinstance(record, Document)), first)
    texts = [" ".join(document.text.split()[:6]) for document in documents if len(document.text.split()) > 3]
    return [texts[at] for at in np.random.default_rng(0).choice(len(texts), QUERIES, replace=False)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("--artifact", type=Path, required=True)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--encoders", type=int, default=1)
    given = parser.parse_args()
    encoder = Encoder(Artifact.open(given.artifact))
    texts = drawn(given.source, min(given.sizes))
    print("documents  points  docs/s  peak MB  bytes/doc  p50 ms  p95 ms  overlap@10")
    for size in given.sizes:
        with tempfile.TemporaryDirectory(dir=given.source.parent) as scratch:
            lines, data = Path(scratch, "part.jsonl"), Path(scratch, "data")
            with given.source.open("rb") as file, lines.open("wb") as part:
                part.writelines(islice(file, size))
            facts, seconds, peak = build(lines, data, given.artifact, given.encoders)
            with closing(EdgeEngine(data).open("default")) as store:
                queries = [store.build.weighed(encoding.vector) for encoding in encoder.encode_queries(texts)]
                store.search(queries[0])
                took = []
                for query in queries:
                    began = time.perf_counter()
                    store.search(query)
                    took.append(1000 * (time.perf_counter() - began))
                exact = best_scores(store.scroll(), queries[:CHECKED])
                found = [[hit.score for hit in store.search(query)] for query in queries[:CHECKED]]
            right = [sum(score > best[-1] - 1e-4 for score in hits) for hits, best in zip(found, exact, strict=True)]
            overlap = statistics.mean(right) / 10
            print(
                f"{facts['documents']:,}  {facts['passages']:,}  {size / seconds:.0f}  {peak / 1e6:.0f}  "
                f"{on_disk(data / 'indexes') / size:.0f}  {statistics.median(took):.2f}  "
                f"{np.percentile(took, 95):.2f}  {overlap:.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
