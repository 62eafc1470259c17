"""How long a search takes, and what an index takes on disk: measured on embedded builds that hold the same documents.

All ways to ask are timed in turn, query by query, so that whatever else the machine does falls on all of them alike.
Searches are the store's own, with the default depth, and bring ten hits with vectors and payload. The payload is the
document's id, so disk and time are those of the vectors.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np

from indexer.edge import EdgeEngine
from indexer.points import point_id
from indexer.store import Build, Mode, Point, Store
from model.vector import FusedVector
from runs.judged_vectors import Vectors, truncate
from runs.results import Milliseconds

BATCH = 256
BLOCK = 512
"""Bytes of a block, as file systems count them."""


class Way(NamedTuple):
    """One way to keep documents and to ask for them; a k of None keeps everything."""

    mode: Mode
    k_document: int | None
    k_query: int | None


class Taken(NamedTuple):
    """Seconds, by the clock and of the processor."""

    clock: float
    processor: float


class Builds:
    """Embedded builds of the same documents under one folder, one for each k that is asked for; a context manager."""

    def __init__(self, documents: Vectors, folder: Path) -> None:
        self._documents, self._engine, self._folder = documents, EdgeEngine(folder), folder
        self._opened = ExitStack()
        self._stores: dict[int | None, Store] = {}

    def __enter__(self) -> "Builds":
        return self

    def __exit__(self, *error: object) -> None:
        self._opened.close()

    def store(self, k: int | None) -> Store:
        """The build whose documents keep `k` terms; made when it is asked for first."""
        if k not in self._stores:
            self._make(k)
            self._stores[k] = self._opened.enter_context(closing(self._engine.open(_index(k), _index(k))))
        return self._stores[k]

    def disk_bytes(self, k: int | None) -> float:
        """Bytes a document, of the blocks that its build takes; files that are mostly holes count what is in them."""
        self.store(k)
        folder = self._folder / "indexes" / _index(k)
        return sum(path.stat().st_blocks * BLOCK for path in folder.rglob("*")) / len(self._documents)

    def _make(self, k: int | None) -> None:
        dense_dim = len(next(iter(self._documents.values())).cls)
        build = Build(id=_index(k), index=_index(k), fingerprint="", dense_dim=dense_dim, created=datetime.now(UTC))
        with closing(self._engine.create(build)) as store:
            for some in _batches(list(self._documents.items())):
                store.upsert([Point(point_id(id), truncate(vector, k), {"doc_id": id}) for id, vector in some])
            store.flush()
            store.optimize()


def search_times(
    builds: Builds, queries: Sequence[FusedVector], ways: Sequence[Way], rounds: int
) -> Mapping[Way, Milliseconds]:
    """Time every query in every way, `rounds` times after one that does not count."""
    stores = {way: builds.store(way.k_document) for way in ways}
    taken: dict[Way, list[Taken]] = {way: [] for way in ways}
    order = np.random.default_rng(0)
    for counted in range(-1, rounds):
        for query in queries:
            for number in order.permutation(len(ways)):
                way = ways[number]
                asked = truncate(query, way.k_query)
                once = _taken(lambda: stores[way].search(asked, mode=way.mode))  # noqa: B023  # called at once
                if counted >= 0:
                    taken[way].append(once)
    return {way: summary(each) for way, each in taken.items()}


def summary(taken: Sequence[Taken]) -> Milliseconds:
    """
    >>> summary([Taken(0.001, 0.001), Taken(0.002, 0.001), Taken(0.003, 0.002)])
    Milliseconds(median=2.0, p95=2.9, processor=1.0)
    """
    clock, processor = 1000 * np.array(taken).T
    return Milliseconds(median=np.median(clock), p95=np.quantile(clock, 0.95), processor=np.median(processor))


def encode_times(encode: Callable[[Sequence[str]], object], texts: Sequence[str]) -> Milliseconds:
    """Time of encoding a text alone; the first one is encoded once more before."""
    encode(texts[:1])
    return summary([_taken(lambda: encode([text])) for text in texts])  # noqa: B023  # called at once


def _taken(call: Callable[[], object]) -> Taken:
    clock, processor = time.perf_counter(), time.process_time()
    call()
    return Taken(time.perf_counter() - clock, time.process_time() - processor)


def _batches(items: list[tuple[str, FusedVector]]) -> Iterator[list[tuple[str, FusedVector]]]:
    for start in range(0, len(items), BATCH):
        yield items[start : start + BATCH]


def _index(k: int | None) -> str:
    return "all" if k is None else f"k{k}"
