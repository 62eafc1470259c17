"""How well two builds answer the same queries: judged ones, or known items.

Each build is asked through its own model, and the difference is taken query by query, so that easy and hard queries
cancel out. Rankings are of documents, each at the place of its best passage. The measures are computed here because
judging is part of every build, and `ir-measures`, which tests hold them against, is an extra.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from math import log2
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydantic import BaseModel

from indexer.documents import load_qrels, load_queries
from indexer.grouping import grouped_hits
from indexer.known_items import Queries, document_of
from indexer.points import point_id
from indexer.store import Store
from model.encoder import Encoder, EncodingError
from model.estimate import Estimate, estimate
from model.lines import SourceError
from model.vector import FusedVector

MEASURES = ("nDCG@10", "Recall@100")
_NDCG_AT, _RECALL_AT = 10, 100
_AT_ONCE = 256


class Opened(NamedTuple):
    """A build that can be searched: its store, and the encoder of the artifact that made it."""

    store: Store
    encoder: Encoder


class Judgement(BaseModel):
    """How well two builds answer the same queries.

    Attributes:
        queries: What was asked.
        count: How many queries.
        candidate: Estimate by measure.
        published: The same for the published build.
        change: Candidate minus published, query by query.
    """

    queries: str
    count: int
    candidate: dict[str, Estimate]
    published: dict[str, Estimate]
    change: dict[str, Estimate]

    @property
    def facts(self) -> dict[str, tuple[float, float, float]]:
        """As it is kept with the build: see `Build.judged`."""
        rows = self.candidate | {f"{measure} change": change for measure, change in self.change.items()}
        return {f"{self.queries}: {name}": (each.mean, each.low, each.high) for name, each in rows.items()}


def judge(candidate: Opened, published: Opened, queries: Queries) -> Judgement:
    """Ask both builds the same queries and compare query by query; at least one query is needed."""
    values = [np.array(list(_measured(build, queries))) for build in (candidate, published)]
    columns = iter(estimate(np.hstack([*values, values[0] - values[1]])))
    tables = [dict(zip(MEASURES, islice(columns, len(MEASURES)), strict=True)) for _ in range(3)]
    ours, theirs, change = tables
    return Judgement(queries=queries.name, count=len(queries.texts), candidate=ours, published=theirs, change=change)


def read_judged(source: str) -> Queries:
    """Queries and judgements of `BEIR_FOLDER[:split]`; the split is `test` unless named.

    Raises:
        SourceError: A file is missing or damaged, or no judged query has a text and a right answer.
    """
    folder, _, split = (source, "", "") if Path(source).is_dir() else source.rpartition(":")
    folder, split = (folder, split or "test") if folder else (source, "test")
    texts = load_queries(Path(folder))
    graded = load_qrels(Path(folder), split).items()
    qrels = {query: grades for query, grades in graded if query in texts and max(grades.values()) > 0}
    if not qrels:
        raise SourceError(f"{folder}, split {split}: no judged query has both a text and a right answer")
    return Queries(f"{Path(folder).name} {split}", {query: texts[query] for query in qrels}, qrels)


def answerable(queries: Queries, stores: Sequence[Store]) -> Queries:
    """The queries of which any of the builds holds a right answer.

    Raises:
        SourceError: There is none: the judgements are of other documents.
    """
    ids = {point_id(document): document for grades in queries.qrels.values() for document in grades}
    held: set[str] = set()
    for batch in _batches(list(ids)):
        held |= {ids[point.id] for store in stores for point in store.get(batch)}
    kept = {
        query: grades
        for query, grades in queries.qrels.items()
        if any(grade > 0 and document in held for document, grade in grades.items())
    }
    if not kept:
        raise SourceError(f"{queries.name}: no right answer is in these builds; name judgements of their documents")
    return Queries(queries.name, {query: queries.texts[query] for query in kept}, kept)


def ndcg(ranking: Sequence[str], grades: Mapping[str, int]) -> float:
    """nDCG@10 of a ranking with a linear gain, as trec_eval has it; at least one grade is above 0.

    >>> round(ndcg(["b", "a"], {"a": 1}), 3)
    0.631
    """
    ideal = sorted((grade for grade in grades.values() if grade > 0), reverse=True)
    return _dcg([grades.get(document, 0) for document in ranking]) / _dcg(ideal)


def recall(ranking: Sequence[str], grades: Mapping[str, int], *, at: int = _RECALL_AT) -> float:
    """Share of the right answers among the first documents."""
    right = {document for document, grade in grades.items() if grade > 0}
    return len(right.intersection(ranking[:at])) / len(right)


def encoded(build: Opened, texts: Mapping[str, str]) -> dict[str, FusedVector]:
    """Vectors of queries as the build is asked them, but of those that its model has none for."""
    vectors: dict[str, FusedVector] = {}
    for batch in _batches(list(texts)):
        while batch:
            try:
                encodings = build.encoder.encode_queries([texts[query] for query in batch])
            except EncodingError as error:
                batch = [query for position, query in enumerate(batch) if position not in error.positions]
            else:
                asked = [build.store.build.weighed(encoding.vector) for encoding in encodings]
                vectors |= dict(zip(batch, asked, strict=True))
                break
    return vectors


def _dcg(grades: Sequence[int]) -> float:
    return sum(max(grade, 0) / log2(rank + 2) for rank, grade in enumerate(grades[:_NDCG_AT]))


def _measured(build: Opened, queries: Queries) -> Iterator[tuple[float, float]]:
    """Both measures of each query; 0 for one that this model has no vector for."""
    vectors = encoded(build, queries.texts)
    for query, grades in queries.qrels.items():
        ranking = _ranked(build.store, vectors[query]) if query in vectors else []
        yield ndcg(ranking, grades), recall(ranking, grades)


def _ranked(store: Store, query: FusedVector) -> list[str]:
    """Documents by their best passage, best first."""
    found = grouped_hits(store, query, limit=_RECALL_AT)
    return [document_of(hit.point) for hit in found.hits]


def _batches(ids: list[str]) -> Iterator[list[str]]:
    return (ids[start : start + _AT_ONCE] for start in range(0, len(ids), _AT_ONCE))
