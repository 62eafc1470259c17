"""How well a network ranks held-out passages, by each part of its vectors and by their sum.

Every passage of the records is ranked for every query, by exact scores in memory: meant for some thousands of passages
during training. `dupmae evaluate` measures what is served, through the exported graph and a real index.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from model.dupmae import FusedEncoder
from model.options import FinetuneOptions
from model.records import Example

TOP = 10
_BATCH = 32


class Vectors(NamedTuple):
    """`cls` (N, d') and the kept terms, `indices` (N, K) and `values` (N, K), on the CPU."""

    cls: Tensor
    indices: Tensor
    values: Tensor


@torch.no_grad()
def judge(
    encoder: FusedEncoder, tokenizer: PreTrainedTokenizerBase, examples: Iterable[Example], options: FinetuneOptions
) -> dict[str, float]:
    """nDCG@10 of the `fused` score, of `cls` and of `ot` over the passages of all examples.

    A record's positives are its only right answers; the mode of the network is put back afterwards.
    """
    examples = list(examples)
    row = {text: n for n, text in enumerate(dict.fromkeys(t for e in examples for t in (*e.positives, *e.negatives)))}
    was_training = encoder.training
    encoder.eval()
    queries = _encode(encoder, tokenizer, [e.query for e in examples], (options.query_tokens, options.k_query))
    passages = _encode(encoder, tokenizer, list(row), (options.document_tokens, options.k_document))
    encoder.train(was_training)
    right = [[row[text] for text in example.positives] for example in examples]
    gains: dict[str, list[float]] = {"fused": [], "cls": [], "ot": []}
    for at, cls, ot in _scores(queries, passages, encoder.vocabulary_size):
        for name, scores in (("fused", cls + ot), ("cls", cls), ("ot", ot)):
            best = scores.topk(min(TOP, len(row)), dim=1).indices.tolist()
            gains[name] += [ndcg(found, wanted) for found, wanted in zip(best, right[at : at + _BATCH], strict=True)]
    return {name: float(np.mean(values)) for name, values in gains.items()}


def ndcg(found: Sequence[int], right: Sequence[int]) -> float:
    """Normalized discounted cumulative gain of a ranking, with answers right or wrong.

    >>> round(ndcg([3, 1], [1]), 3)
    0.631
    """
    wanted = set(right)
    gain = sum(1 / np.log2(rank + 2) for rank, passage in enumerate(found) if passage in wanted)
    return float(gain / sum(1 / np.log2(rank + 2) for rank in range(min(len(wanted), TOP))))


def _encode(
    encoder: FusedEncoder, tokenizer: PreTrainedTokenizerBase, texts: list[str], lengths: tuple[int, int]
) -> Vectors:
    """Vectors in the order of `texts`, encoded in the order of their lengths."""
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


def _scores(queries: Vectors, passages: Vectors, vocabulary: int) -> Iterator[tuple[int, Tensor, Tensor]]:
    """For each block of queries: where it begins, and both parts of its scores (block, P)."""
    for at in range(0, len(queries.cls), _BATCH):
        block = Vectors(*(field[at : at + _BATCH] for field in queries))
        dense = torch.zeros(len(block.cls), vocabulary).scatter(1, block.indices, block.values.clamp(min=0))
        columns = dense.t()  # (V, block)
        ot = torch.stack(
            [
                (columns[ids] * values[:, None]).sum(0)
                for ids, values in zip(passages.indices, passages.values.clamp(min=0), strict=True)
            ]
        )
        yield at, block.cls @ passages.cls.t(), ot.t()
