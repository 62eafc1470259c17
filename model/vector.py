"""The fused representation of one text, and the one inner product that scores it.

It is a type of its own, free of numpy's heavier friends, because every other part speaks it: the encoder makes it,
an engine stores it, the searcher explains it.
"""

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
        mine, theirs = self.shared(document)
        ot = np.dot(self.ot_values[mine].astype(np.float64), document.ot_values[theirs])
        return Parts(float(np.dot(self.cls.astype(np.float64), document.cls)), float(ot))

    def shared(self, other: "FusedVector") -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Where the ids that both hold stand: in this vector and in the other, int64 (m,) each.

        >>> one = FusedVector(np.float32([1]), np.array([3, 7]), np.float32([1, 1]))
        >>> two = FusedVector(np.float32([1]), np.array([7, 9]), np.float32([1, 1]))
        >>> [positions.tolist() for positions in one.shared(two)]
        [[1], [0]]
        """
        places = np.searchsorted(other.ot_indices, self.ot_indices)
        places[places == other.ot_indices.size] = 0  # behind the last: held against any, which it does not equal
        mine = np.flatnonzero(other.ot_indices[places] == self.ot_indices) if other.ot_indices.size else places[:0]
        return mine, places[mine]
