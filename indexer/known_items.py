"""Queries for a build that nobody judged: a part of a stored text, for which its own document is the right answer.

The query is half the words of one sentence. What it measures is whether a document is found again by some of its own
words, among all others: enough to notice a model, a source or an index that went wrong, and to compare two builds. It
says nothing of how well people's questions are answered; that takes judgements (`--judge`). Words are left out because
whole titles and sentences are found by any model: docs/operations.md has the figures.

Draws are random and always the same: ids are hashes, so any stretch of points in order of id is a random sample, and
the words that go are chosen by the point's id. Rebuilding does not change the questions.
"""

import re
import uuid
from collections.abc import Iterator, Mapping
from itertools import islice
from random import Random
from typing import NamedTuple

from indexer.points import passage_text, point_id
from indexer.store import Point, Store

KNOWN_ITEMS = "known items"
"""The name of such a set."""

QUERIES = 400
"""Drawn at most. A difference of .005 in nDCG@10 is about as much as so many can tell apart."""

_AT_ONCE = 64
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")
_FEWEST_WORDS = 4


class Queries(NamedTuple):
    """What is asked, and which documents are right.

    Attributes:
        name: Of the set, for people.
        texts: Query by its id.
        qrels: Grade by document id by query id.
    """

    name: str
    texts: Mapping[str, str]
    qrels: Mapping[str, Mapping[str, int]]


def known_items(candidate: Store, published: Store, *, count: int = QUERIES, seed: int = 0) -> Queries:
    """Queries from documents that both builds hold, `count` at most.

    A document whose text differs between the builds gives two queries, one from each text: an edited document costs
    both builds the same, and a text that was cut costs the build that cut it.
    """
    texts: dict[str, str] = {}
    qrels: dict[str, Mapping[str, int]] = {}
    for ours, theirs in _held_by_both(candidate, published, seed):
        document = document_of(ours)
        for number, query in enumerate(dict.fromkeys(filter(None, map(known_item_query, (ours, theirs))))):
            if len(texts) == count:
                return Queries(KNOWN_ITEMS, texts, qrels)
            texts[f"{ours.id}/{number}"] = query
            qrels[f"{ours.id}/{number}"] = {document: 1}
    return Queries(KNOWN_ITEMS, texts, qrels)


def known_item_query(point: Point) -> str | None:
    """Half the words, in their order, of one sentence of the passage; None for a passage of less than four words."""
    random = Random(point.id)
    sentences = [sentence.split() for sentence in _SENTENCE_END.split(passage_text(point, None))]
    long_enough = [words for words in sentences if len(words) >= 2 * _FEWEST_WORDS]
    words = random.choice(long_enough) if long_enough else passage_text(point, None).split()
    if len(words) < _FEWEST_WORDS:
        return None
    kept = sorted(random.sample(range(len(words)), len(words) // 2))
    return " ".join(words[position] for position in kept)


def document_of(point: Point) -> str:
    """The id of the document that a stored passage belongs to."""
    return str(point.payload["parent_id"])


def sample(store: Store, seed: int) -> Iterator[Point]:
    """Every point once, beginning at a random place in the order of ids; the first ones are a random sample."""
    start = str(uuid.UUID(int=Random(seed).getrandbits(128)))
    yield from store.scroll(start)
    for point in store.scroll():
        if point.id >= start:
            return
        yield point


def _held_by_both(candidate: Store, published: Store, seed: int) -> Iterator[tuple[Point, Point]]:
    """Sampled points of the candidate, each with the published point of its id, or else with its document's first."""
    drawn = sample(candidate, seed)
    while page := list(islice(drawn, _AT_ONCE)):
        first = {point.id: point_id(document_of(point)) for point in page}
        theirs = {point.id: point for point in published.get([*{*first, *first.values()}])}
        for point in page:
            twin = theirs.get(point.id) or theirs.get(first[point.id])
            if twin is not None:
                yield point, twin
