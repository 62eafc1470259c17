"""Hard negatives for training, found by searching: here because it reads an index; `finetune` reads its file."""

import json
import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from indexer.bm25 import Bm25
from indexer.documents import Document


@dataclass(frozen=True, slots=True)
class RankWindow:
    """Which ranks of a result list may serve as negatives, and how many to draw of them.

    The first ranks are left out by `start` where judgements are sparse: an unjudged hit there is often a right answer.
    """

    start: int = 0
    stop: int = 50
    draw: int = 8


def bm25_negatives(
    documents: Iterable[Document],
    queries: Mapping[str, str],
    qrels: Mapping[str, Mapping[str, int]],
    *,
    window: RankWindow = RankWindow(),
    seed: int = 0,
) -> Iterator[dict[str, object]]:
    """Training records in FlagEmbedding's format, one a judged query: its positives, and BM25 hits that are not.

    Args:
        documents: The collection; held in memory.
        queries: Text by query id.
        qrels: Grade by document id by query id; above 0 is a positive.
        window: Ranks to draw from.
        seed: Of the draw.

    Yields:
        `{"query": str, "pos": [str, ...], "neg": [str, ...]}`.
    """
    passages = {document.id: document.passage for document in documents}
    ids, bm25, rng = list(passages), Bm25(passages.values()), random.Random(seed)
    judged = [query for query in qrels if query in queries]
    rankings = bm25.search([queries[query] for query in judged], window.stop)
    for query, ranking in zip(judged, rankings, strict=True):
        relevant = {document for document, grade in qrels[query].items() if grade > 0 and document in passages}
        if not relevant:
            continue
        texts = {passages[document] for document in relevant}
        wrong = [text for hit in ranking[window.start :] if (text := passages[ids[hit.row]]) not in texts]
        negatives = rng.sample(wrong, min(window.draw, len(wrong)))
        yield {"query": queries[query], "pos": [passages[document] for document in sorted(relevant)], "neg": negatives}


def write_records(records: Iterable[Mapping[str, object]], path: Path) -> int:
    """Write JSON lines, returning their number."""
    count = 0
    with path.open("w", encoding="utf-8") as lines:
        for record in records:
            print(json.dumps(record, ensure_ascii=False), file=lines)
            count += 1
    return count
