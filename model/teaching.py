"""What two systems, a sentence encoder and BM25, say of any query and passage of a file of records.

Distillation from scores (`model.score`) knows each query's own passages only. Here a teacher is kept as what its scores
are made of, one row a text, so that every passage of a batch gets a score for every query of it, in microseconds, and
without a label: cosines of the encoder's vectors, and BM25 over words. The first teaches the [CLS] side, the second
the words, and their sum, which ranks better than either, the fused score. Cost: 2 bytes for each dimension of a text,
and 6 for each distinct word.

BM25 is a sum over a query's words, and cosines are no sum: beside a query of a paragraph they would go unheard. So BM25
is divided by the square root of what the words weigh together, as the deviation of a sum grows. For a usual query it is
near 0 for a passage that holds none of its words and about 1 for one that holds all.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from model.atomic import replacing
from model.candidates import key
from model.lines import SourceError
from model.options import TrainingError
from model.records import Example, Records

ENDING = ".teaching"
"""The folder beside a file of records: `train.jsonl.teaching`."""

COSINE_SCALE = 20.0
"""The temperature of 0.05 that sentence encoders are commonly trained with, as a factor."""

K1, B = 1.2, 0.75
"""BM25's saturation of repeated words, and how much longer passages are held to hold words by chance."""

USUAL_WEIGHT = 25.0
"""Nats that the words of a usual query weigh together."""

FACTS = "facts.json"

_WORD = re.compile(r"(?u)\b\w\w+\b")
_MOST = 65535
_LEAST = 1e-9
_RECORDS_AT_ONCE = 512


class Facts(BaseModel):
    """What a teaching was made of.

    Attributes:
        source: Digest of the records.
        teacher: Digest of the sentence encoder.
        texts: How many.
        passages: How many of them are passages, over which words are counted.
        mean_words: Words of a passage.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str
    teacher: str
    texts: int
    passages: int
    mean_words: float


class Said(NamedTuple):
    """What the two systems say: `cosine` (B, M) in -1..1; `words` (B, M), 0 to about 1 for a usual query; float32."""

    cosine: NDArray[np.float32]
    words: NDArray[np.float32]


class Teaching:
    """The rows of a file's texts, memory-mapped; safe to use from several threads.

    Attributes:
        facts: What it was made of.
        width: Dimensions of the encoder's vectors.
    """

    def __init__(self, folder: Path, records: Records) -> None:
        """Open a folder that `teach` wrote.

        Raises:
            SourceError: It is missing or damaged, or was made of other records.
        """
        self._folder = folder
        try:
            self.facts = Facts.model_validate_json((folder / FACTS).read_bytes())
            self._keys, self._vectors, self._starts, self._words, self._counts, self._weights = (
                np.load(folder / f"{name}.npy", mmap_mode="r")
                for name in ("keys", "vectors", "starts", "words", "counts", "weights")
            )
        except (OSError, ValueError, ValidationError) as error:
            raise SourceError(
                f"{folder}: {error}; write it with `dupmae model teach TEACHER {records.path}`"
            ) from error
        if self.facts.source != records.digest:
            raise SourceError(
                f"{folder} was made of other records than {records.path} holds now; "
                f"`dupmae model teach TEACHER {records.path} --restart` makes it anew"
            )
        self.width = self._vectors.shape[1]

    @classmethod
    def of(cls, records: Records) -> "Teaching":
        """The teaching beside a file of records; raises what opening it raises."""
        return cls(beside(records.path), records)

    def vectors(self, keys: NDArray[np.int64]) -> NDArray[np.float32]:
        """(N,) `candidates.key` of texts -> (N, width), of length 1.

        Raises:
            SourceError: A text is not among those of the records.
        """
        found: NDArray[np.float32] = self._vectors[self._rows(keys)].astype(np.float32)
        return found

    def said(self, queries: NDArray[np.int64], passages: NDArray[np.int64]) -> Said:
        """Of every query (B,) and passage (M,), by `candidates.key`; raises what `vectors` raises."""
        bags = [self._bag(row) for row in self._rows(queries)]
        asked = np.unique(np.concatenate([words for words, _ in bags]))  # (U,)
        factors = np.zeros((len(bags), len(asked)), np.float32)
        for row, (words, times) in enumerate(bags):
            weights = self._weights[words] * times
            loudness = math.sqrt(USUAL_WEIGHT * max(float(weights.sum()), _LEAST))
            factors[row, np.searchsorted(asked, words)] = weights / loudness
        held = np.array([self._saturated(asked, row) for row in self._rows(passages)])  # (M, U)
        return Said(self.vectors(queries) @ self.vectors(passages).T, factors @ held.T)

    def _saturated(self, asked: NDArray[np.int32], row: int) -> NDArray[np.float32]:
        """BM25's factor, 0 to K1 + 1, of each of the words (U,) in a passage."""
        words, counts = self._bag(row)
        if not len(words):
            return np.zeros(len(asked), np.float32)
        at = np.minimum(np.searchsorted(words, asked), len(words) - 1)
        times = np.where(words[at] == asked, counts[at], 0).astype(np.float32)
        length = 1 - B + B * float(counts.sum()) / self.facts.mean_words
        return times * (K1 + 1) / (times + np.float32(K1 * length))

    def _bag(self, row: int) -> tuple[NDArray[np.int32], NDArray[np.uint16]]:
        """Its distinct words in ascending order, and how often each is there."""
        of = slice(*self._starts[row : row + 2])
        return self._words[of], self._counts[of]

    def _rows(self, keys: NDArray[np.int64]) -> NDArray[np.int64]:
        rows = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        if (self._keys[rows] != keys).any():
            raise SourceError(f"{self._folder} lacks a text of its records: damaged; make it anew with --restart")
        return rows


def beside(path: Path) -> Path:
    """Where the teaching of a file of records lies.

    >>> beside(Path("data/train.jsonl")).name
    'train.jsonl.teaching'
    """
    return path.with_name(path.name + ENDING)


def teach(
    records: Records,
    examples: Iterable[Example],
    encode: Callable[[list[str], list[str]], NDArray[np.float32]],
    teacher: str,
    *,
    restart: bool = False,
) -> Facts:
    """Write the teaching of a file of records beside it; it appears when it is whole.

    Args:
        records: Whose queries and passages.
        examples: The records, perhaps by way of a progress bar.
        encode: Vectors (N, width) of length 1 of queries and of passages, in this order.
        teacher: Digest of what encodes.
        restart: Replace the one that is there.

    Raises:
        FileExistsError: There is one already.
        TrainingError: There is no record.
    """
    folder = beside(records.path)
    if folder.exists() and not restart:
        raise FileExistsError(f"{folder} exists already; remove it, or --restart to write it anew")
    if not len(records):
        raise TrainingError(f"{records.path} holds no record to teach")
    bags, seen, passages = _Bags(), dict[int, int](), 0
    with replacing(folder) as new:
        with (new / "rows").open("wb") as rows:
            rest = iter(examples)
            while chunk := list(islice(rest, _RECORDS_AT_ONCE)):
                asked = _new((example.query for example in chunk), seen)
                answers = _new((t for example in chunk for t in (*example.positives, *example.negatives)), seen)
                vectors = encode(asked, answers)
                rows.write(vectors.astype(np.float16).tobytes())
                bags.add(asked, count=False)
                bags.add(answers, count=True)
                passages += len(answers)
        order = np.argsort(np.fromiter(seen, np.int64, len(seen)))
        written = np.memmap(new / "rows", np.float16, "r", shape=(len(seen), vectors.shape[1]))
        np.save(new / "vectors.npy", written[order])
        np.save(new / "keys.npy", np.fromiter(seen, np.int64, len(seen))[order])
        bags.save(new, order)
        (new / "rows").unlink()
        facts = Facts(
            source=records.digest,
            teacher=teacher,
            texts=len(seen),
            passages=passages,
            mean_words=max(1.0, bags.total / max(1, passages)),
        )
        (new / FACTS).write_text(json.dumps(facts.model_dump(), indent=2) + "\n", encoding="utf-8")
    return facts


def _new(texts: Iterable[str], seen: dict[int, int]) -> list[str]:
    """Texts whose key is not among those seen, which they become."""
    found = []
    for text in texts:
        if (hashed := key(text)) not in seen:
            seen[hashed] = len(seen)
            found.append(text)
    return found


class _Bags:
    """Words of texts as numbers, in the order in which texts were added."""

    def __init__(self) -> None:
        import Stemmer
        from bm25s.stopwords import STOPWORDS_EN

        self._stem, self._stop = Stemmer.Stemmer("english"), frozenset(STOPWORDS_EN)
        self._vocabulary: dict[str, int] = {}
        self._holding = Counter[int]()
        self._words: list[NDArray[np.int32]] = []
        self._counts: list[NDArray[np.uint16]] = []
        self._passages = 0
        self.total = 0

    def add(self, texts: Sequence[str], *, count: bool) -> None:
        """Passages count for how rare a word is, queries do not."""
        for text in texts:
            stems = self._stem.stemWords([w for w in _WORD.findall(text.lower()) if w not in self._stop])
            bag = Counter(self._vocabulary.setdefault(stem, len(self._vocabulary)) for stem in stems)
            ascending = sorted(bag)
            self._words.append(np.array(ascending, np.int32))
            self._counts.append(np.array([min(bag[word], _MOST) for word in ascending], np.uint16))
            if count:
                self._holding.update(ascending)
                self._passages += 1
                self.total += len(stems)

    def save(self, folder: Path, order: NDArray[np.int64]) -> None:
        words, counts = ([column[row] for row in order] for column in (self._words, self._counts))
        np.save(folder / "starts.npy", np.cumsum([0, *map(len, words)], dtype=np.int64))
        np.save(folder / "words.npy", np.concatenate(words))
        np.save(folder / "counts.npy", np.concatenate(counts))
        holding = np.array([self._holding[word] for word in range(len(self._vocabulary))], np.float32)
        rare = np.log1p((self._passages - holding + 0.5) / (holding + 0.5))  # as Lucene and bm25s weigh
        np.save(folder / "weights.npy", rare.astype(np.float32))
