"""What mining reads, under progress bars: queries with their positives, and passages to rank for them."""

import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Literal

from indexer.catalog import kept_artifact, open_encoder, open_engine
from indexer.documents import Document, distinct
from indexer.judged import open_judged
from indexer.points import passage_text
from indexer.ranker import IndexRanker, Ranker
from indexer.report import show_count
from indexer.settings import IndexSettings
from indexer.sources import count_records, read_documents
from indexer.store import Mode, Store
from model.records import Records


@contextmanager
def open_queries(
    path: Path, split: str, hide: Sequence[str], left_out: Counter[str]
) -> Iterator[tuple[Records, frozenset[int]]]:
    """Queries with their positives, and the keys of passages that may not be negatives.

    Args:
        path: A training file, or a BEIR folder.
        split: Of the folder.
        hide: Splits of the folder whose judged passages are what may not be negatives.
        left_out: Gets the number of things that are of no use, by what they are.

    Raises:
        SourceError: A file is missing or damaged.
    """
    if path.is_dir():
        with open_judged(path, split, _documents([path], left_out), hide=hide) as judged:
            if judged.unanswered:
                left_out["judged queries without a positive"] = judged.unanswered
            yield judged.records, judged.hidden
    else:
        with Records(path) as records:
            left_out.update(records.skipped)
            yield records, frozenset()


@contextmanager
def open_ranker(
    settings: IndexSettings, method: Mode | Literal["bm25"], sources: Sequence[str], left_out: Counter[str]
) -> Iterator[Ranker]:
    """The published index with the artifact that encoded it; or BM25 over its passages or over other documents.

    Args:
        settings: Name the index.
        method: How it is searched.
        sources: Other documents for BM25, as for `read_documents`.
        left_out: Gets the number of bad documents.

    Raises:
        ArtifactError: The artifact of the build is missing or damaged.
        IndexNotFound: Nothing is published under this name.
        ModuleNotFoundError: BM25 is not installed.
        SourceError: A source is missing or damaged, or holds nothing to search.
        StoreError: The engine failed.
    """
    if method != "bm25":
        with _published(settings) as store:
            encoder = open_encoder(settings, kept_artifact(settings, store.build))
            yield IndexRanker(encoder, store, method, depth=settings.depth)
        return
    from indexer.bm25 import Bm25Ranker

    documents = (document.passage for document in _documents(sources, left_out))
    with tempfile.TemporaryFile() as file:
        yield Bm25Ranker(documents if sources else _stored(settings), file)


def _documents(sources: Sequence[str | Path], left_out: Counter[str]) -> Iterator[Document]:
    with show_count("reading", count_records(sources)) as watch:
        for number, record in enumerate(distinct(read_documents(sources, sys.stdin.buffer)), start=1):
            if isinstance(record, Document):
                yield record
            else:
                left_out["bad documents"] += 1
            watch(number, 0)


def _stored(settings: IndexSettings) -> Iterator[str]:
    with _published(settings) as store, show_count("reading", store.count()) as watch:
        for number, point in enumerate(store.scroll(), start=1):
            yield passage_text(point, store.build.chunking)
            watch(number, 0)


@contextmanager
def _published(settings: IndexSettings) -> Iterator[Store]:
    with closing(open_engine(settings)) as engine:
        build = engine.published(settings.index)
        with closing(engine.open(build.index, build.id)) as store:
            yield store
