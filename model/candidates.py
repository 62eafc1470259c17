"""Which passages stand against which query: the batches of fine-tuning.

Every passage of a batch, on whatever rank, is a candidate for every query of it. That is right only if a passage counts
once, and if none that answers a query is called wrong: texts are known by a hash, so that both hold over ranks as well.
"""

import hashlib
import random
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase

from model.distributed import Ranks, seed_of
from model.lines import SourceError
from model.options import FinetuneOptions
from model.records import Example, Records


class Draw(NamedTuple):
    """One query with the passages drawn for it, the positive first; `scores` are a teacher's, or none."""

    example: Example
    passages: tuple[str, ...]
    scores: tuple[float, ...]


class Drawn(NamedTuple):
    """One rank's share of a batch; equal passages are one row.

    Attributes:
        query_ids: (B, L) int64.
        query_mask: (B, L) int64.
        passage_ids: (P, L) int64.
        passage_mask: (P, L) int64.
        query_keys: (B,) int64, hashes of the queries.
        passage_keys: (P,) int64, hashes of the passages; none is 0.
        right_keys: (B, X) int64, hashes of all positives of each query's record, filled up with 0.
        group: (B, G) int64, rows of the passages drawn for each query, its positive first, filled up with -1.
        teacher: (B, G) float32, a teacher's scores of them, or zeros.
        progress: Share of the run that is done, in (0, 1].
        source: Which of the files the batch comes from.
    """

    query_ids: Tensor
    query_mask: Tensor
    passage_ids: Tensor
    passage_mask: Tensor
    query_keys: Tensor
    passage_keys: Tensor
    right_keys: Tensor
    group: Tensor
    teacher: Tensor
    progress: float
    source: int = 0

    def to(self, device: torch.device) -> "Drawn":
        """The same on another device."""
        moved = (field.to(device, non_blocking=True) if isinstance(field, Tensor) else field for field in self)
        return Drawn(*moved)  # type: ignore[arg-type]  # all but the last two are tensors

    @property
    def tokens(self) -> int:
        """Without padding."""
        return int(self.query_mask.sum()) + int(self.passage_mask.sum())


class Candidates(NamedTuple):
    """The passages of all ranks as columns, for this rank's queries.

    Attributes:
        size: Columns of one rank; a rank with fewer passages has empty ones at its end.
        keys: (M,) int64, hashes of the passages; 0 where a column is empty.
        target: (B,) int64, the column of the positive drawn.
        ignored: (B, M) bool: empty, repeated, or another right answer to the query.
        group: (B, G) int64, columns of the passages drawn for the query, or -1.
        once: (M,) float32, 1 for each distinct passage's first column.
    """

    size: int
    keys: Tensor
    target: Tensor
    ignored: Tensor
    group: Tensor
    once: Tensor

    @classmethod
    def gathered(cls, drawn: Drawn, ranks: Ranks) -> "Candidates":
        """Put the shares of all ranks together."""
        count = torch.tensor([len(drawn.passage_keys)], device=drawn.passage_keys.device)
        size = int(ranks.gather(count).max())
        keys = ranks.gather(F.pad(drawn.passage_keys, (0, size - len(drawn.passage_keys))))  # (M,)
        first = (keys[:, None] == keys).int().argmax(1)  # (M,), where a passage stands first
        once = (first == torch.arange(len(keys), device=keys.device)) & (keys != 0)
        group = torch.where(drawn.group < 0, -1, first[drawn.group.clamp(min=0) + ranks.rank * size])
        target = group[:, 0]
        # a passage is right for a query if its record says so, or another record of the same query
        width = int(ranks.gather(torch.tensor([drawn.right_keys.shape[1]], device=keys.device)).max())
        right_keys = ranks.gather(F.pad(drawn.right_keys, (0, width - drawn.right_keys.shape[1])))
        answers = (right_keys[:, :, None] == keys).any(1)  # (all queries, M)
        same_query = drawn.query_keys[:, None] == ranks.gather(drawn.query_keys)  # (B, all queries)
        right = same_query.float() @ answers.float() > 0  # (B, M)
        ignored = (right | ~once).scatter(1, target[:, None], False)
        return cls(size, keys, target, ignored, group, once.float())


class Batches:
    """This rank's share of each step; files take turns in proportion to the square root of their size.

    Which file, which records, which of their passages: all are functions of seed and step.

    Raises:
        SourceError: A file has fewer records than a batch.
    """

    def __init__(
        self, files: Sequence[Records], tokenizer: PreTrainedTokenizerBase, options: FinetuneOptions, ranks: Ranks
    ) -> None:
        for file in files:
            if len(file) < options.batch_size:
                raise SourceError(
                    f"{file.path}: {len(file)} records, fewer than batch_size={options.batch_size}; use a smaller batch"
                )
        self._files, self._tokenizer, self._options, self._ranks = files, tokenizer, options, ranks
        self._stream: Iterator[tuple[int, list[Example]]] | None = None

    def parts(self, step: int) -> list[Drawn]:
        """The share of a step, in one part. Steps are asked for in order; only the first may be any."""
        options = self._options
        if self._stream is None:
            self._stream = self._examples(after=step - 1)
        source, examples = next(self._stream)
        numbered = self._ranks.share(list(enumerate(examples)))
        draws = [draw(example, options, random.Random(seed_of(options.seed, step, row))) for row, example in numbered]
        return [drawn(draws, self._tokenizer, options, step / options.steps)._replace(source=source)]

    def _examples(self, after: int) -> Iterator[tuple[int, list[Example]]]:
        options = self._options
        weights = [len(file) ** 0.5 for file in self._files]
        turns, step = [0] * len(self._files), 0
        while True:
            step += 1
            chosen = random.Random(seed_of(options.seed, step)).choices(range(len(self._files)), weights)[0]
            turns[chosen] += 1
            if step > after:
                rows = _rows(len(self._files[chosen]), turns[chosen] - 1, options.batch_size, (options.seed, chosen))
                yield chosen, [self._files[chosen][row] for row in rows]


def draw(example: Example, options: FinetuneOptions, rng: random.Random) -> Draw:
    """One positive and up to `options.negatives` negatives of a record, with their scores where there are any.

    Raises:
        SourceError: There is a weight on distillation, and the record has no scores.
    """
    positive = rng.randrange(len(example.positives))
    wanted = min(options.negatives, len(example.negatives))
    negatives = rng.sample(range(len(example.negatives)), wanted)
    passages = (example.positives[positive], *(example.negatives[row] for row in negatives))
    if not options.distill_weight:
        return Draw(example, passages, ())
    if not example.positive_scores or (negatives and not example.negative_scores):
        raise SourceError(
            f"distill_weight={options.distill_weight}, but the record of {example.query!r:.60} has no scores; "
            "`dupmae model score` writes them"
        )
    scores = (example.positive_scores[positive], *(example.negative_scores[row] for row in negatives))
    return Draw(example, passages, scores)


def drawn(
    draws: Sequence[Draw], tokenizer: PreTrainedTokenizerBase, options: FinetuneOptions, progress: float = 1.0
) -> Drawn:
    """Tokens and keys of what was drawn."""
    row = {text: number for number, text in enumerate(dict.fromkeys(text for one in draws for text in one.passages))}
    queries = _tokens(tokenizer, [one.example.query for one in draws], options.query_tokens)
    passages = _tokens(tokenizer, list(row), options.document_tokens)
    return Drawn(
        *queries,
        *passages,
        torch.tensor([key(one.example.query) for one in draws]),
        torch.tensor([key(text) for text in row]),
        _padded([torch.tensor([key(text) for text in one.example.positives]) for one in draws], 0),
        _padded([torch.tensor([row[text] for text in one.passages]) for one in draws], -1),
        _padded([torch.tensor(one.scores or [0.0] * len(one.passages)) for one in draws], 0.0),
        progress,
    )


def key(text: str) -> int:
    """A text's hash, in 1..2**63 - 1.

    >>> key("a") == key("a") != key("b")
    True
    """
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest) >> 1 | 1


def _rows(records: int, turn: int, batch_size: int, seed: tuple[int, int]) -> list[int]:
    """The records of a file's n-th batch; each epoch has an order of its own and drops its rest."""
    epoch, batch = divmod(turn, records // batch_size)
    rows: list[int] = _order(records, seed_of(*seed, epoch))[batch * batch_size : (batch + 1) * batch_size].tolist()
    return rows


@lru_cache(maxsize=16)  # as many files as take turns
def _order(records: int, seed: int) -> NDArray[np.int64]:
    return np.random.default_rng(seed).permutation(records)


def _tokens(tokenizer: PreTrainedTokenizerBase, texts: list[str], max_tokens: int) -> tuple[Tensor, Tensor]:
    tokens = tokenizer(texts, padding=True, truncation=True, max_length=max_tokens, return_tensors="pt")
    return tokens["input_ids"], tokens["attention_mask"]


def _padded(rows: list[Tensor], value: float) -> Tensor:
    return pad_sequence(rows, batch_first=True, padding_value=value)
