"""How well held-out passages are ranked, by each part of a network's vectors and by their sum.

Every passage of the records is ranked for every query, by exact scores in memory: meant for some thousands of passages
during training. `dupmae evaluate` measures what is served, through the exported graph and a real index.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from model.dupmae import FusedEncoder
from model.options import FinetuneOptions
from model.rarity import nats
from model.records import Example

TOP = 10
_BATCH = 32


class Collection(NamedTuple):
    """What is ranked for whom: `queries`, `passages`, and for each query the positions of its right answers."""

    queries: list[str]
    passages: list[str]
    right: list[list[int]]

    @classmethod
    def of(cls, examples: Iterable[Example]) -> "Collection":
        """All passages of the records, each once. A record's positives are its only right answers."""
        examples = list(examples)
        texts = dict.fromkeys(text for example in examples for text in (*example.positives, *example.negatives))
        row = {text: number for number, text in enumerate(texts)}
        right = [[row[text] for text in example.positives] for example in examples]
        return cls([example.query for example in examples], list(row), right)

    def readable(self, tokenizer: PreTrainedTokenizerBase) -> "Collection":
        """Without texts of no word that the tokenizer knows, and without queries that this leaves no answer."""
        queries, passages = (_readable(texts, tokenizer) for texts in (self.queries, self.passages))
        row = {old: new for new, old in enumerate(passages)}
        right = {query: [row[old] for old in self.right[query] if old in row] for query in queries}
        kept = [query for query in queries if right[query]]
        return Collection(
            [self.queries[query] for query in kept],
            [self.passages[passage] for passage in passages],
            [right[query] for query in kept],
        )


class Vectors(NamedTuple):
    """`cls` (N, d') and the kept terms, `indices` (N, K) and `values` (N, K), on the CPU; at or below 0 is padding."""

    cls: Tensor
    indices: Tensor
    values: Tensor


def judge(
    encoder: FusedEncoder,
    tokenizer: PreTrainedTokenizerBase,
    examples: Iterable[Example],
    options: FinetuneOptions,
    rarity_weight: float | None = None,
) -> dict[str, float]:
    """nDCG@10 of the `fused` score, of `cls` and of `ot` over the passages of all examples.

    The mode of the network is put back afterwards.
    """
    collection = Collection.of(examples)
    was_training = encoder.training
    encoder.eval()
    queries = encode(encoder, tokenizer, collection.queries, (options.query_tokens, options.k_query))
    passages = encode(encoder, tokenizer, collection.passages, (options.document_tokens, options.k_document))
    encoder.train(was_training)
    found = ndcgs(weighed(queries, passages, rarity_weight), passages, collection.right)
    return {name: float(values.mean()) for name, values in found.items()}


def ndcgs(queries: Vectors, passages: Vectors, right: Sequence[Sequence[int]]) -> dict[str, NDArray[np.float64]]:
    """nDCG@10 (queries,) of the `fused` score, of `cls` and of `ot`, all passages ranked for each query."""
    gains: dict[str, list[float]] = {"fused": [], "cls": [], "ot": []}
    for at, cls, ot in _scores(queries, passages):
        for name, scores in (("fused", cls + ot), ("cls", cls), ("ot", ot)):
            best = scores.topk(min(TOP, len(passages.cls)), dim=1).indices.tolist()
            gains[name] += [ndcg(found, wanted) for found, wanted in zip(best, right[at : at + _BATCH], strict=True)]
    return {name: np.array(values) for name, values in gains.items()}


def weighed(queries: Vectors, passages: Vectors, rarity_weight: float | None) -> Vectors:
    """The queries as an index of these passages weighs them: see `model.rarity`; as they are without a weight."""
    if rarity_weight is None:
        return queries
    rarity = rarity_in(passages, 1 + int(queries.indices.max()))
    return queries._replace(values=queries.values * rarity_weight * rarity[queries.indices])


def rarity_in(passages: Vectors, entries: int) -> Tensor:
    """(V,) float32 nats, the rarity of at least the first `entries` of the vocabulary among passages."""
    holding = torch.bincount(passages.indices[passages.values > 0], minlength=entries)
    return torch.from_numpy(nats(holding.numpy(), len(passages.cls)))


def ndcg(found: Sequence[int], right: Sequence[int]) -> float:
    """Normalized discounted cumulative gain of a ranking, with answers right or wrong.

    >>> round(ndcg([3, 1], [1]), 3)
    0.631
    """
    wanted = set(right)
    gain = sum(1 / np.log2(rank + 2) for rank, passage in enumerate(found) if passage in wanted)
    return float(gain / sum(1 / np.log2(rank + 2) for rank in range(min(len(wanted), TOP))))


@torch.no_grad()
def encode(
    encoder: FusedEncoder, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], lengths: tuple[int, int]
) -> Vectors:
    """Vectors in the order of `texts`, encoded in the order of their lengths.

    Args:
        encoder: In evaluation mode.
        tokenizer: The encoder's.
        texts: With their prompts.
        lengths: Tokens that are read, and terms that are kept.
    """
    max_tokens, k = lengths
    order = sorted(range(len(texts)), key=lambda n: len(texts[n]))
    device = encoder.special_ids.device
    parts = []
    for at in range(0, len(order), _BATCH):
        chosen = [texts[n] for n in order[at : at + _BATCH]]
        tokens = tokenizer(chosen, padding=True, truncation=True, max_length=max_tokens, return_tensors="pt").to(device)
        cls, bag = encoder(tokens["input_ids"], tokens["attention_mask"], k)
        parts.append((cls.float().cpu(), bag.indices.cpu(), bag.values.float().cpu()))
    back = torch.tensor(order).argsort()
    return Vectors(*(torch.cat(column)[back] for column in zip(*parts, strict=True)))


def _scores(queries: Vectors, passages: Vectors) -> Iterator[tuple[int, Tensor, Tensor]]:
    """For each block of queries: where it begins, and both parts of its scores (block, P)."""
    width = 1 + int(max(queries.indices.max(), passages.indices.max()))
    weights = passages.values.clamp(min=0)  # (P, K)
    for at in range(0, len(queries.cls), _BATCH):
        block = Vectors(*(field[at : at + _BATCH] for field in queries))
        dense = torch.zeros(width, len(block.cls))  # a row a term, as the bags of passages gather them
        dense.scatter_add_(0, block.indices.t(), block.values.clamp(min=0).t())
        ot = F.embedding_bag(passages.indices, dense, mode="sum", per_sample_weights=weights)  # (P, block)
        yield at, block.cls @ passages.cls.t(), ot.t()


def _readable(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Positions of the texts that hold an ordinary token."""
    special, ids = set(tokenizer.all_special_ids), tokenizer(list(texts))["input_ids"]
    return [position for position, found in enumerate(ids) if not special.issuperset(found)]
