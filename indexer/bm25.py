"""BM25, the yardstick: `bm25s` with English stop words and the Snowball stemmer, as baselines are usually measured."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import bm25s
import Stemmer


class Bm25Hit(NamedTuple):
    """`row`: position of the text in what the index was made from."""

    row: int
    score: float


class Bm25:
    """An index in memory over `texts`."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._stemmer = Stemmer.Stemmer("english")
        tokens = bm25s.tokenize(list(texts), stopwords="en", stemmer=self._stemmer, show_progress=False)
        self._index = bm25s.BM25()
        self._index.index(tokens, show_progress=False)

    def search(self, queries: Sequence[str], k: int) -> list[list[Bm25Hit]]:
        """The best `k` of each query by (-score, row); texts that share no word with it are left out."""
        k = min(k, self._index.scores["num_docs"])
        tokens = bm25s.tokenize(list(queries), stopwords="en", stemmer=self._stemmer, show_progress=False)
        rows, scores = self._index.retrieve(tokens, k=k, show_progress=False)
        return [
            sorted(
                (Bm25Hit(int(r), float(s)) for r, s in zip(*pair, strict=True) if s > 0),
                key=lambda h: (-h.score, h.row),
            )
            for pair in zip(rows, scores, strict=True)
        ]
