"""A stored document as a query: the mean of its passages' vectors, cut to as many words as a query has.

The score of the mean is the mean of the scores, so a document is like this one if it is like its passages on the whole,
and not because one of them happens to agree. docs/decisions.md has what else was tried.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from indexer.points import passage_text, place
from model.encoder import Encoding
from model.vector import FusedVector
from service.caller import ANYBODY, Caller
from service.searcher import Searcher
from service.spans import traced

MOST_PASSAGES = 64
"""Passages of a document that are read; of a longer one so many are taken at even distances."""


class Likeness(NamedTuple):
    """What is searched with.

    Attributes:
        text: The passages that were read.
        encoding: Their vector; `truncated` if there are more of them.
    """

    text: str
    encoding: Encoding


@traced("look_up")
def likeness(searcher: Searcher, document_id: str, caller: Caller = ANYBODY) -> Likeness:
    """What finds the documents that are like a stored one.

    Args:
        searcher: Holds it.
        document_id: As its source gave it.
        caller: What they may not see is not there, and tells them nothing.

    Raises:
        DocumentNotFound: The index holds no such document.
        StoreError: As `Store.get`.
    """
    first = searcher.document(document_id, caller.sees)
    step = -(-place(first).of // MOST_PASSAGES)
    passages = searcher.passages(first, document_id, step=step)
    text = "\n".join(passage_text(passage, searcher.build.chunking) for passage in passages)
    mean = mean_vector([passage.vector for passage in passages], searcher.encoder.artifact.manifest.k_query)
    encoding = Encoding(mean, len(searcher.encoder.token_ids(text)), step > 1)
    return Likeness(text, searcher.asked(encoding, blindly=caller.tenant is not None))


def mean_vector(vectors: Sequence[FusedVector], k: int) -> FusedVector:
    """The mean of vectors, with its `k` heaviest words.

    >>> one = FusedVector(np.float32([2, 0]), np.array([3, 7]), np.float32([1, 4]))
    >>> two = FusedVector(np.float32([0, 2]), np.array([7, 9]), np.float32([2, 3]))
    >>> mean = mean_vector([one, two], 2)
    >>> mean.cls.tolist(), mean.ot_indices.tolist(), mean.ot_values.tolist()
    ([1.0, 1.0], [7, 9], [3.0, 1.5])
    """
    indices, at = np.unique(np.concatenate([vector.ot_indices for vector in vectors]), return_inverse=True)
    weights = np.concatenate([vector.ot_values for vector in vectors])
    values = np.bincount(at, weights=weights) / len(vectors)
    kept = np.sort(np.argsort(-values, kind="stable")[:k])
    cls = np.stack([vector.cls for vector in vectors]).mean(axis=0, dtype=np.float64)
    return FusedVector(np.asarray(cls, np.float32), indices[kept], values[kept].astype(np.float32))
