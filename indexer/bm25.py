"""BM25, the yardstick: `bm25s` with English stop words and the Snowball stemmer, as baselines are usually measured."""

import hashlib
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import IO, NamedTuple

import bm25s
import Stemmer
from pydantic import JsonValue

from indexer.negatives import Candidate
from indexer.ranker import Ranking
from model.lines import SourceError
from model.records import Example


class Bm25Hit(NamedTuple):
    """`row`: position of the text in what the index was made from."""

    row: int
    score: float


class Bm25:
    """An index in memory over `texts`, which pass through: 8 bytes for each distinct word of each of them."""

    def __init__(self, texts: Iterable[str]) -> None:
        """Read the texts, and index them, which takes about 60 bytes for each of those words.

        Raises:
            SourceError: There is no text, or none with a word to find it by.
        """
        self._stemmer = Stemmer.Stemmer("english")
        tokens = bm25s.tokenize(texts, stopwords="en", stemmer=self._stemmer, show_progress=False)
        if not tokens.vocab:
            raise SourceError(f"none of {len(tokens.ids)} passages holds a word that BM25 could find it by")
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


class Bm25Ranker:
    """BM25 over passages that lie in a file, 8 bytes of memory each besides the index.

    It scores no positives: BM25 has no score for a text that is not in the collection.
    """

    def __init__(self, passages: Iterable[str], file: IO[bytes]) -> None:
        """Read and index the passages.

        Args:
            passages: Each is read once.
            file: An empty one for them, open for writing and reading; it stays the caller's.

        Raises:
            SourceError: See `Bm25`.
        """
        self._file, self._ends, self._digest = file, array("q", [0]), hashlib.sha256()
        self._bm25 = Bm25(self._kept(passages))

    @property
    def made_by(self) -> Mapping[str, JsonValue]:
        """See `Ranker.made_by`."""
        return {"method": "bm25", "passages": self._digest.hexdigest()}

    def rank(self, examples: Sequence[Example], limit: int, *, score_positives: bool) -> list[Ranking | None]:
        """See `Ranker.rank`. A query whose words are all unknown finds nothing."""
        assert not score_positives, "BM25 keeps no margin"
        found = self._bm25.search([example.query for example in examples], limit)
        return [Ranking([Candidate(self._passage(hit.row), hit.score) for hit in hits]) for hits in found]

    def _kept(self, passages: Iterable[str]) -> Iterator[str]:
        for passage in passages:
            written = self._file.write(passage.encode())
            self._ends.append(self._ends[-1] + written)
            self._digest.update(written.to_bytes(8) + passage.encode())
            yield passage

    def _passage(self, row: int) -> str:
        start, end = self._ends[row : row + 2]
        self._file.seek(start)
        return self._file.read(end - start).decode()
