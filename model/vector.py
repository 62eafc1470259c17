"""The fused representation of one text, and the one inner product that scores it.

It is a type of its own, free of numpy's heavier friends, because every other part speaks it: the encoder makes it,
an engine stores it, the searcher explains it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Parts(NamedTuple):
    """A score's two addends: what the [CLS] side gave and what the ordinary tokens (OT) gave."""

    cls: float
    ot: float

    @property
    def score(self) -> float:
        """The sum."""
        return self.cls + self.ot

    @property
    def ot_share(self) -> float:
        """Share of the score that words gave, from 0 to 1; a part below 0 gave nothing.

        >>> Parts(cls=1.0, ot=3.0).ot_share
        0.75
        """
        cls, ot = max(self.cls, 0.0), max(self.ot, 0.0)
        return ot / (cls + ot) if cls + ot else 0.0


@dataclass(frozen=True, slots=True, eq=False)
class FusedVector:
    """Reduced [CLS] vector and sparse bag of words of one text (DupMAE, section 3.3).

    Attributes:
        cls: float32 (d',).
        ot_indices: int64 (n,), vocabulary ids, strictly ascending.
        ot_values: float32 (n,), each finite and above 0.
    """

    cls: NDArray[np.float32]
    ot_indices: NDArray[np.int64]
    ot_values: NDArray[np.float32]

    def score(self, document: "FusedVector") -> Parts:
        """The fused score of this query against `document`: `<cls, cls> + sum over shared ids of value * value`.

        >>> one = FusedVector(np.float32([1, 2]), np.array([3, 7]), np.float32([0.5, 2]))
        >>> two = FusedVector(np.float32([1, 0]), np.array([7, 9]), np.float32([4, 1]))
        >>> one.score(two)
        Parts(cls=1.0, ot=8.0)
        """
        return self.scores([document])[0]

    def scores(self, documents: Sequence["FusedVector"]) -> list[Parts]:
        """What `score` gives for each document, bit by bit the same in whatever company.

        Many at once, since each call of numpy lets go of Python's lock, for which a busy service has others waiting.
        """
        if not documents:
            return []
        cls = np.array([document.cls for document in documents], np.float64) * self.cls
        indices = np.concatenate([document.ot_indices for document in documents])
        values = np.concatenate([document.ot_values for document in documents])
        owners = np.repeat(np.arange(len(documents)), [document.ot_indices.size for document in documents])
        places = np.searchsorted(self.ot_indices, indices)
        places[places == self.ot_indices.size] = 0  # behind the last: held against any, which it does not equal
        shared = np.flatnonzero(self.ot_indices[places] == indices) if self.ot_indices.size else places[:0]
        products = self.ot_values[places[shared]].astype(np.float64) * values[shared]
        ot = np.bincount(owners[shared], products, len(documents))
        return list(map(Parts, cls.sum(axis=1).tolist(), ot.tolist()))
