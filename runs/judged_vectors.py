"""A judged collection as vectors: every text encoded once, with more terms than any index keeps, and cut afterwards.

What `truncate.py` and `balance.py` measure, they measure on these. Vectors can be kept in a folder, since encoding
takes most of the time: a file is used again only for the same artifact and the same texts.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from indexer.documents import Document, distinct, load_qrels, load_queries
from indexer.evaluate import RANKED
from indexer.exact import ExactScores
from indexer.measures import Qrels, Run
from indexer.ranker import vectors_or_none
from indexer.sources import read_documents
from indexer.store import Point
from model.artifact import Manifest
from model.encoder import Encoder, Encoding
from model.lines import SourceError
from model.rarity import Rarity
from model.vector import FusedVector

DOCUMENT_TERMS = 384
"""Terms a document is encoded with; a query keeps all it has."""

Vectors = Mapping[str, FusedVector]
"""By id; texts that have none are left out."""


class JudgedVectors(NamedTuple):
    """One split of one collection, `name` being `collection:split`. `texts` are those of the judged queries.

    `manifest` is that of the artifact which made the vectors; queries are as its encoder gives them.
    """

    name: str
    qrels: Qrels
    texts: Mapping[str, str]
    queries: Vectors
    documents: Vectors
    manifest: Manifest

    def ranker(self, k_document: int | None) -> "Ranker":
        """Of the documents, cut to their largest terms."""
        return Ranker({id: truncate(vector, k_document) for id, vector in self.documents.items()}, self.manifest)


def read_judged(source: str, encoder: Encoder, cache: Path | None = None) -> JudgedVectors:
    """Encode a collection and the judged queries of one split.

    Args:
        source: A BEIR folder, or folder:split; `test` unless named.
        encoder: Makes the vectors.
        cache: Folder in which vectors are kept; None keeps none.

    Raises:
        SourceError: A file is missing or damaged, or no document or no judged query has a vector.
    """
    path, _, split = source.partition(":")
    folder, split = Path(path), split or "test"
    qrels, queries = load_qrels(folder, split), load_queries(folder)
    texts = {id: queries[id] for id in qrels if id in queries}
    passages = {
        record.id: record.passage for record in distinct(read_documents([folder])) if isinstance(record, Document)
    }
    vocabulary = encoder.artifact.manifest.vocabulary_size
    judged = JudgedVectors(
        f"{folder.resolve().name}:{split}",
        qrels,
        texts,
        _vectors(encoder.encode_queries, texts, vocabulary, encoder.fingerprint, cache),
        _vectors(encoder.encode_documents, passages, min(DOCUMENT_TERMS, vocabulary), encoder.fingerprint, cache),
        encoder.artifact.manifest,
    )
    if not (judged.queries and judged.documents):
        raise SourceError(f"{source}: no document or no judged query holds a word that the model knows")
    return judged


def truncate(vector: FusedVector, k: int | None) -> FusedVector:
    """The vector as the encoder gives it for this `k`: the k largest terms, the lower id before an equal one.

    >>> truncate(FusedVector(np.float32([1]), np.array([3, 5, 9]), np.float32([2, 1, 4])), 2).ot_indices.tolist()
    [3, 9]
    """
    if k is None or len(vector.ot_values) <= k:
        return vector
    kept = np.sort(np.argsort(-vector.ot_values, kind="stable")[:k])
    return FusedVector(vector.cls, vector.ot_indices[kept], vector.ot_values[kept])


class Ranker:
    """Ranks the documents of a collection for a query as an index of them would, by exact scores (`indexer.exact`)."""

    def __init__(self, documents: Vectors, manifest: Manifest) -> None:
        self.ids = list(documents)
        self._exact = ExactScores(Point(id, vector, {}) for id, vector in documents.items())
        self._rarity = Rarity.wanted(documents.values(), manifest)

    def parts(self, query: FusedVector) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The CLS and the OT part of every document's score, in the order of `ids`."""
        return self._exact.parts(self._rarity.weigh(query) if self._rarity else query)

    def runs(self, queries: Vectors) -> dict[str, Run]:
        """The best hundred documents of every query by the fused score, by CLS alone and by OT alone."""
        runs: dict[str, dict[str, Mapping[str, float]]] = {"fused": {}, "cls": {}, "ot": {}}
        for id, query in queries.items():
            cls, ot = self.parts(query)
            runs["fused"][id] = self._best(cls + ot)
            runs["cls"][id] = self._best(cls)
            runs["ot"][id] = self._best(np.where(ot > 0, ot, -np.inf))  # no word in common is no hit
        return dict(runs)

    def _best(self, scores: NDArray[np.float64]) -> dict[str, float]:
        count = min(RANKED, len(scores))
        rows = np.argpartition(-scores, count - 1)[:count]
        return {self.ids[row]: float(scores[row]) for row in rows if np.isfinite(scores[row])}


def _vectors(
    encode: Callable[..., list[Encoding]], texts: Mapping[str, str], k: int, fingerprint: str, cache: Path | None
) -> Vectors:
    if cache is None:
        return _encode(encode, texts, k)
    sha = hashlib.sha256(json.dumps([fingerprint, encode.__name__, k, *texts.items()]).encode())
    file = cache / f"{sha.hexdigest()[:32]}.npz"
    if not file.exists():
        cache.mkdir(parents=True, exist_ok=True)
        _save(_encode(encode, texts, k), file)
    return _load(file)


def _encode(encode: Callable[..., list[Encoding]], texts: Mapping[str, str], k: int) -> Vectors:
    def with_k(some: Sequence[str]) -> list[Encoding]:
        return encode(some, k=k)

    vectors = vectors_or_none(with_k, list(texts.values()))
    return {id: vector for id, vector in zip(texts, vectors, strict=True) if vector is not None}


def _save(vectors: Vectors, file: Path) -> None:
    """Write vectors; a file that is there is whole."""
    partial = file.with_suffix(".partial.npz")
    np.savez(
        partial,
        ids=np.array(json.dumps(list(vectors))),
        sizes=np.array([len(vector.ot_indices) for vector in vectors.values()], np.int64),
        cls=np.stack([vector.cls for vector in vectors.values()]) if vectors else np.zeros((0, 0), np.float32),
        indices=np.concatenate([np.zeros(0, np.int64), *(vector.ot_indices for vector in vectors.values())]),
        values=np.concatenate([np.zeros(0, np.float32), *(vector.ot_values for vector in vectors.values())]),
    )
    partial.replace(file)


def _load(file: Path) -> Vectors:
    with np.load(file, allow_pickle=False) as kept:
        ids = json.loads(str(kept["ids"]))
        ends = np.cumsum(kept["sizes"])[:-1]
        columns = kept["cls"], np.split(kept["indices"], ends), np.split(kept["values"], ends)
    return {id: FusedVector(*vector) for id, *vector in zip(ids, *columns, strict=True)}
