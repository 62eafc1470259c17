"""How rare each word is in the collection that is searched, and what that makes of a query.

A model knows how rare words were in what it was trained on. What tells documents apart is how rare they are among the
documents at hand: `information` is no rare word in a collection on information science. So the passages whose bag holds
an entry are counted when an index is built, and a query's weights are multiplied by the entry's rarity, as BM25 does.
Documents and the score, one inner product, stay what they are.
"""

import base64
import zlib
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from model.artifact import Manifest
from model.vector import FusedVector

USUAL_NATS = 3.0
"""Rarity of the words that answers share with queries, in the mean: 2.4 to 4.0 on collections of development."""

FEW_PASSAGES = 20
"""So many passages say as much of a word's rarity as what is usual does. Of an index that was built from one document,
to which others are written, nothing is known yet."""


class Rarity(BaseModel):
    """The passages that hold each entry of a vocabulary. Kept with a build, so it is small, and JSON.

    Attributes:
        weight: What a nat of rarity is worth: `Manifest.rarity_weight`.
        passages: How many were counted.
        holding: Of these, how many hold each entry: uint32 (V,), little-endian, deflated, in base64.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    weight: float = Field(gt=0)
    passages: int = Field(ge=0)
    holding: str = Field(repr=False)

    @classmethod
    def counted(cls, vectors: Iterable[FusedVector], vocabulary: int, weight: float) -> Self:
        """Count the entries of vectors of passages, which are passed over once."""
        holding, passages = np.zeros(vocabulary, "<u4"), 0
        for vector in vectors:
            holding[vector.ot_indices] += 1  # a vector has each entry once
            passages += 1
        packed = base64.b64encode(zlib.compress(holding.tobytes(), level=9))
        return cls(weight=weight, passages=passages, holding=packed.decode())

    @classmethod
    def wanted(cls, vectors: Iterable[FusedVector], manifest: Manifest) -> Self | None:
        """As `counted` for an artifact; None if it leaves queries as they are, and then no vector is asked for."""
        if manifest.rarity_weight is None:
            return None
        return cls.counted(vectors, manifest.vocabulary_size, manifest.rarity_weight)

    @property
    def nats(self) -> NDArray[np.float32]:
        """(V,) float32, the rarity of each entry. Not to be written to."""
        return _unpacked(self.holding, self.passages)

    def weigh(self, query: FusedVector) -> FusedVector:
        """The query with each of its words as important as it is rare here.

        >>> bags = [FusedVector(np.ones(1, np.float32), np.array(ids), np.ones(len(ids))) for ids in ([0, 1], [0], [0])]
        >>> rarity = Rarity.counted(bags, vocabulary=3, weight=0.5)
        >>> rarity.weigh(FusedVector(np.float32([1]), np.arange(3), np.float32([1, 1, 2]))).ot_values.round(2)
        array([1.31, 1.37, 2.88], dtype=float32)
        """
        return _times(query, self.weight * self.nats[query.ot_indices])

    def weigh_blindly(self, query: FusedVector) -> FusedVector:
        """The query for one who may not learn what the passages hold: every word is as rare as words usually are."""
        return _times(query, np.float32(self.weight * USUAL_NATS))


@lru_cache(maxsize=16)
def _unpacked(holding: str, passages: int) -> NDArray[np.float32]:
    """Remembered beside the values, whose equality is that of their fields."""
    return nats(np.frombuffer(zlib.decompress(base64.b64decode(holding)), "<u4"), passages)


def _times(query: FusedVector, factor: NDArray[np.float32] | np.float32) -> FusedVector:
    return FusedVector(query.cls, query.ot_indices, (query.ot_values * factor).astype(np.float32))


def nats(holding: NDArray[np.integer[Any]], passages: int) -> NDArray[np.float32]:
    """`log(1 + (N - n + 0.5) / (n + 0.5))`, never negative: BM25's rarity as Lucene and Qdrant have it.

    Of few passages it is drawn to `USUAL_NATS`.

    Args:
        holding: How many passages hold each entry.
        passages: How many there are.
    """
    held = holding.astype(np.float64)
    counted, known = np.log1p((passages - held + 0.5) / (held + 0.5)), passages / (passages + FEW_PASSAGES)
    return (known * counted + (1 - known) * USUAL_NATS).astype(np.float32)
