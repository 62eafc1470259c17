"""Who ranks passages for the queries of training records: here an index, through the artifact that encoded it."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from pydantic import JsonValue

from indexer.negatives import Candidate, normal
from indexer.points import passage_text
from indexer.store import DEFAULT_DEPTH, Mode, Store
from model.encoder import Encoder, Encoding, EncodingError
from model.records import Example
from model.vector import FusedVector


class Ranking(NamedTuple):
    """What was found for one record.

    Attributes:
        hits: Best first.
        positives: Scores of the record's positives, of those that have one; empty unless they were asked for.
    """

    hits: Sequence[Candidate]
    positives: Sequence[float] = ()


class Ranker(Protocol):
    """Finds passages for queries."""

    @property
    def made_by(self) -> Mapping[str, JsonValue]:
        """What the rankings depend on, so that a broken run goes on with the same."""

    def rank(self, examples: Sequence[Example], limit: int, *, score_positives: bool) -> list[Ranking | None]:
        """The best `limit` passages for each record's query; None where the query has no vector."""


class IndexRanker:
    """One build, searched as the service searches it. Rank fusion has no score for a positive."""

    def __init__(self, encoder: Encoder, store: Store, mode: Mode, *, depth: int = DEFAULT_DEPTH) -> None:
        self._encoder, self._store, self._mode, self._depth = encoder, store, mode, depth

    @property
    def made_by(self) -> Mapping[str, JsonValue]:
        """See `Ranker.made_by`."""
        return {"method": self._mode, "build": self._store.build.id, "depth": self._depth}

    def rank(self, examples: Sequence[Example], limit: int, *, score_positives: bool) -> list[Ranking | None]:
        """See `Ranker.rank`."""
        assert not (score_positives and self._mode == "rrf"), "rank fusion scores no positive"
        queries = vectors_or_none(self._encoder.encode_queries, [example.query for example in examples])
        return [
            None if query is None else self._ranking(query, example, limit, score_positives)
            for query, example in zip(queries, examples, strict=True)
        ]

    def _ranking(self, query: FusedVector, example: Example, limit: int, score_positives: bool) -> Ranking:
        query = self._store.build.weighed(query)
        found = self._store.search(query, mode=self._mode, limit=limit, depth=self._depth)
        hits = [Candidate(passage_text(hit.point, self._store.build.chunking), hit.score) for hit in found]
        return Ranking(hits, self._score(query, example.positives, hits) if score_positives else [])

    def _score(self, query: FusedVector, positives: Sequence[str], hits: Sequence[Candidate]) -> list[float]:
        """The scores of the positives. Most are among the hits, which spares encoding them: that is what takes long."""
        known = {normal(hit.text): hit.score for hit in hits}
        found = [known[normal(text)] for text in positives if normal(text) in known]
        absent = vectors_or_none(
            self._encoder.encode_documents, [text for text in positives if normal(text) not in known]
        )
        parts = [query.score(vector) for vector in absent if vector is not None]
        return found + [{"fused": part.score, "cls": part.cls, "ot": part.ot}[self._mode] for part in parts]


def vectors_or_none(
    encode: Callable[[Sequence[str]], list[Encoding]], texts: Sequence[str]
) -> list[FusedVector | None]:
    """The vector of each text, or None where it has none."""
    rest = list(range(len(texts)))
    while rest:
        try:
            encodings = encode([texts[row] for row in rest])
        except EncodingError as error:
            rest = [row for position, row in enumerate(rest) if position not in error.positions]
        else:
            vectors = {row: encoding.vector for row, encoding in zip(rest, encodings, strict=True)}
            return [vectors.get(row) for row in range(len(texts))]
    return [None] * len(texts)
