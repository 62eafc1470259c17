"""A judged collection through the whole path: the encoder, an embedded index, and the searches a service runs.

Rankings stand side by side: BM25, each side of the fused vector alone, both by rank fusion, and the fused score. And
the engine's answers are held against exact scores of all points.
"""

import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import BaseModel

from indexer.bm25 import Bm25
from indexer.build import BuildOptions, Progress, build_index, ignore_progress, source_digest
from indexer.documents import BadRecord, Document, distinct, load_qrels, load_queries
from indexer.edge import EdgeEngine
from indexer.exact import Agreement, ExactScores, compare
from indexer.grouping import Wanted, grouped_hits
from indexer.measures import MEASURES, Qrels, Run, judge, write_run
from indexer.sources import read_documents
from indexer.store import DEFAULT_DEPTH, Build, Chunking, Engine, Mode, Store
from model.encoder import Encoder, EncodingError
from model.estimate import Estimate, estimate
from model.lines import SourceError
from model.vector import FusedVector

MODES: tuple[Mode, ...] = ("cls", "ot", "rrf", "fused")
RANKED = 100
"""Hits per query, as deep as the deepest measure looks."""

_INDEX = "evaluation"
_QUERIES_AT_ONCE = 256


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions:
    """What is measured, and how.

    Attributes:
        split: Name of the judgements, as in `qrels/<split>.tsv`.
        depth: Candidates each side of a fused query brings.
        chunking: How long documents become passages, the best of which stands for its document; None cuts each to what
            the model reads. BM25 reads whole documents either way.
        runs: Folder for one TREC run file a ranking; None writes none.
        resamples: Of the bootstrap.
        seed: Of the bootstrap.
    """

    split: str = "test"
    depth: int = DEFAULT_DEPTH
    chunking: Chunking | None = None
    runs: Path | None = None
    resamples: int = 2000
    seed: int = 0


class Exactness(BaseModel):
    """The engine's fused top 10 against exact scores of all points; see `Agreement`.

    Attributes:
        queries: How many were compared.
        overlap_at_10: Mean over them.
        same_order: Share of them.
        largest_score_error: Over all hits, as the other two.
        largest_part_error: See above.
        largest_parts_gap: See above.
    """

    queries: int
    overlap_at_10: float
    same_order: float
    largest_score_error: float
    largest_part_error: float
    largest_parts_gap: float


class Rates(BaseModel):
    """How fast it went, one query after the other. `documents_per_s` covers encoding, writing and optimizing, and is
    None where a kept index was used."""

    documents_per_s: float | None
    queries_encoded_per_s: float
    searches_per_s: dict[str, float]


class Evaluation(BaseModel):
    """The result of one run.

    Attributes:
        systems: Measure -> estimate, by ranking.
        fused_minus: The same for the paired difference between the fused score and every other ranking.
    """

    collection: str
    split: str
    model: str
    precision: str
    fingerprint: str
    documents: int
    passages: int
    chunking: Chunking | None
    truncated: int
    dead: int
    queries: int
    depth: int
    resamples: int
    seed: int
    systems: dict[str, dict[str, Estimate]]
    fused_minus: dict[str, dict[str, Estimate]]
    exactness: Exactness
    rates: Rates


def evaluate(
    folder: Path,
    encoder: Encoder,
    scratch: Path,
    options: EvaluationOptions,
    progress: Progress = ignore_progress,
) -> Evaluation:
    """Index a BEIR folder, run its judged queries, and measure.

    Args:
        folder: Collection, queries and judgements. The passages are held in memory, for BM25.
        encoder: Makes the vectors.
        scratch: Where the index is made; one that is there already is used again if nothing changed.
        options: What to measure.
        progress: As for `build_index`.

    Raises:
        SourceError: A file of the folder is missing or damaged, a judged query has no text, or none has a vector.
    """
    qrels = load_qrels(folder, options.split)
    queries = _judged_queries(folder, qrels)
    records = list(distinct(read_documents([folder])))
    engine = EdgeEngine(scratch)
    build, seconds = _indexed(engine, encoder, records, options.chunking, progress)
    started = time.perf_counter()
    vectors = _encode_queries(encoder, queries)
    queries_encoded_per_s = len(queries) / (time.perf_counter() - started)
    vectors = {query: build.weighed(vector) for query, vector in vectors.items()}
    with closing(engine.open(_INDEX, build.id)) as store:
        searched, searches_per_s = _search_all(store, vectors, options.depth)
        exactness = _exactness(store, vectors, options.depth)
    runs = {"bm25": _bm25(records, queries), **searched}
    if options.runs:
        _write_runs(runs, options.runs)
    systems, fused_minus = _judged(qrels, runs, options)
    return Evaluation(
        collection=folder.name,
        split=options.split,
        model=encoder.artifact.manifest.name,
        precision=encoder.artifact.manifest.precision,
        fingerprint=encoder.fingerprint,
        documents=build.documents,
        passages=build.passages,
        chunking=build.chunking,
        truncated=build.truncated,
        dead=build.dead,
        queries=len(queries),
        depth=options.depth,
        resamples=options.resamples,
        seed=options.seed,
        systems=systems,
        fused_minus=fused_minus,
        exactness=exactness,
        rates=Rates(
            documents_per_s=build.documents / seconds if seconds else None,
            queries_encoded_per_s=queries_encoded_per_s,
            searches_per_s=searches_per_s,
        ),
    )


def _judged_queries(folder: Path, qrels: Qrels) -> dict[str, str]:
    queries = load_queries(folder)
    if missing := [query for query in qrels if query not in queries]:
        raise SourceError(f"{folder}: no text for {len(missing)} judged queries, the first being {missing[0]!r}")
    return {query: queries[query] for query in qrels}


def _indexed(
    engine: Engine,
    encoder: Encoder,
    records: Sequence[Document | BadRecord],
    chunking: Chunking | None,
    progress: Progress,
) -> tuple[Build, float | None]:
    """A ready build of these documents, and the seconds it took unless it was there."""
    digest = source_digest(record for record in records if isinstance(record, Document))
    wanted = ("ready", encoder.fingerprint, digest, chunking)
    for build in engine.builds(_INDEX):
        made = (build.state, build.fingerprint, build.source_digest, build.chunking)
        if build.passages and made == wanted:  # a build of no passages is older than they are
            return build, None
    started = time.perf_counter()
    options = BuildOptions(index=_INDEX, chunking=chunking, max_bad=sys.maxsize)
    build = build_index(engine, encoder, records, options, progress)
    return build, time.perf_counter() - started


def _encode_queries(encoder: Encoder, queries: Mapping[str, str]) -> dict[str, FusedVector]:
    """The vectors of all queries that have one; the others find nothing."""
    vectors: dict[str, FusedVector] = {}
    names = list(queries)
    for start in range(0, len(names), _QUERIES_AT_ONCE):
        window = names[start : start + _QUERIES_AT_ONCE]
        try:
            encodings = encoder.encode_queries([queries[name] for name in window])
        except EncodingError as error:
            window = [name for position, name in enumerate(window) if position not in error.positions]
            encodings = encoder.encode_queries([queries[name] for name in window])
        vectors |= {name: encoding.vector for name, encoding in zip(window, encodings, strict=True)}
    if not vectors:
        raise SourceError(f"none of the {len(queries)} judged queries holds a word that the model knows")
    return vectors


def _search_all(
    store: Store, vectors: Mapping[str, FusedVector], depth: int
) -> tuple[dict[str, Run], dict[str, float]]:
    """Run and searches per second, by mode."""
    runs: dict[str, Run] = {}
    searches_per_s: dict[str, float] = {}
    for mode in MODES:
        started = time.perf_counter()
        runs[mode] = _search(store, vectors, mode, depth)
        searches_per_s[mode] = len(vectors) / (time.perf_counter() - started)
    return runs, searches_per_s


def _search(store: Store, vectors: Mapping[str, FusedVector], mode: Mode, depth: int) -> Run:
    return {
        query: {
            str(hit.point.payload["doc_id"]): hit.score
            for hit in grouped_hits(store, vector, Wanted(mode), limit=RANKED, depth=depth).hits
        }
        for query, vector in vectors.items()
    }


def _bm25(records: Sequence[Document | BadRecord], queries: Mapping[str, str]) -> Run:
    passages = {record.id: record.passage for record in records if isinstance(record, Document)}
    ids = list(passages)
    rankings = Bm25(passages.values()).search(list(queries.values()), RANKED)
    return {
        query: {ids[hit.row]: hit.score for hit in ranking} for query, ranking in zip(queries, rankings, strict=True)
    }


def _exactness(store: Store, vectors: Mapping[str, FusedVector], depth: int) -> Exactness:
    exact = ExactScores(store.scroll())
    found = [compare(exact, vector, store.search(vector, depth=depth)) for vector in vectors.values()]
    by_field = Agreement(*np.array(found, dtype=np.float64).T)
    return Exactness(
        queries=len(found),
        overlap_at_10=np.mean(by_field.overlap),
        same_order=np.mean(by_field.same_order),
        largest_score_error=np.max(by_field.score_error),
        largest_part_error=np.max(by_field.part_error),
        largest_parts_gap=np.max(by_field.parts_gap),
    )


def _write_runs(runs: Mapping[str, Run], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, run in runs.items():
        write_run(run, folder / f"{name}.trec", tag=name)


def _judged(
    qrels: Qrels, runs: Mapping[str, Run], options: EvaluationOptions
) -> tuple[dict[str, dict[str, Estimate]], dict[str, dict[str, Estimate]]]:
    """Estimates of every system, and of what the fused score adds to each other one."""
    values = {name: judge(qrels, run) for name, run in runs.items()}
    columns = values | {f"fused - {name}": values["fused"] - values[name] for name in values if name != "fused"}
    estimates = iter(estimate(np.hstack(list(columns.values())), resamples=options.resamples, seed=options.seed))
    tables = {name: {measure: next(estimates) for measure in MEASURES} for name in columns}
    return (
        {name: tables[name] for name in runs},
        {name: tables[f"fused - {name}"] for name in runs if name != "fused"},
    )
