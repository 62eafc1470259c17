"""Heads to start fine-tuning from, in closed form over a sample of texts, without gradient steps.

`W_cls`, so that the [CLS] side is a useful vector at a scale where inner products are logits: `fit_projection` by ridge
regression onto the vectors of a model that has some (a mean-pooling sentence encoder; or the same model before its body
moved on), or `spread_projection` by whitening where there is no such model. And `calibrate_terms`: gains and biases, so
that a term counts by how far it stands above its own average and the two parts start at equal strength.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import BatchEncoding, PreTrainedTokenizerBase

from model.checkpoint import Checkpoint
from model.dupmae import FusedEncoder
from model.lpu import pool

SCALE = 20.0
"""Score of a text with itself on either side: the factor (1 / temperature) sentence encoders train cosines with."""

Vectors = Callable[[Tensor, Tensor], Tensor]
"""input_ids (B, L), attention_mask (B, L) -> (B, D), the vectors to come near to."""


def mean_pooled(encoder: FusedEncoder) -> Vectors:
    """The vectors of a mean-pooling sentence encoder, of length `SCALE ** 0.5`."""

    def vectors(input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        mask = attention_mask[..., None].float()
        mean = (encoder.hidden(input_ids, attention_mask) * mask).sum(1) / mask.sum(1)
        return F.normalize(mean) * SCALE**0.5

    return vectors


def own_cls(encoder: FusedEncoder) -> Vectors:
    """The [CLS] vectors that a fused encoder has now."""

    def vectors(input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return encoder.cls(encoder.hidden(input_ids, attention_mask))

    return vectors


@torch.no_grad()
def fit_projection(checkpoint: Checkpoint, wanted: Vectors, texts: Sequence[str], *, ridge: float = 1e-3) -> float:
    """Set `W_cls` to the ridge solution of `h_cls -> wanted`.

    Args:
        checkpoint: Changed in place.
        wanted: Vectors of `dense_dim` dimensions.
        texts: At least ten times as many as the width.
        ridge: Added to the diagonal of the mean Gram matrix, relative to its mean.

    Raises:
        ValueError: Another width.

    Returns:
        The mean cosine between fitted and wanted vectors over the sample.
    """
    encoder = checkpoint.model.encoder.eval()
    pairs = [(encoder.hidden(*tokens)[:, 0], wanted(*tokens)) for tokens in _tokens(checkpoint.tokenizer, texts)]
    x, y = (torch.cat(column).double() for column in zip(*pairs, strict=True))  # (N, d), (N, d')
    if y.shape[1] != encoder.project.out_features:
        raise ValueError(f"dense_dim is {encoder.project.out_features} and must be the teacher's width, {y.shape[1]}")
    gram = x.t() @ x / len(x)
    gram += torch.eye(len(gram), dtype=gram.dtype) * ridge * gram.diagonal().mean()
    solution = torch.linalg.solve(gram, x.t() @ y / len(x))  # (d, d')
    encoder.project.weight.copy_(solution.t())
    return float(F.cosine_similarity(x @ solution, y).mean())


@torch.no_grad()
def spread_projection(checkpoint: Checkpoint, texts: Sequence[str], *, ridge: float = 1e-2) -> None:
    """Set `W_cls` to the strongest principal directions of `h_cls`, each made equally strong (whitening).

    The mean is projected out, or else it would give every pair of texts the same large score.

    Args:
        checkpoint: Changed in place.
        texts: At least ten times as many as the width.
        ridge: Added to each variance, relative to the mean one, so that noise is not blown up.
    """
    encoder = checkpoint.model.encoder.eval()
    states = [encoder.hidden(*tokens)[:, 0] for tokens in _tokens(checkpoint.tokenizer, texts)]
    x = torch.cat(states).double()  # (N, d)
    mean = x.mean(0)
    without = torch.eye(len(mean), dtype=x.dtype) - torch.outer(mean, mean) / mean.square().sum()
    centred = (x - mean) @ without
    variances, directions = torch.linalg.eigh(centred.t() @ centred / len(x))
    best = variances.argsort(descending=True)[: encoder.project.out_features]
    weight = (directions[:, best] / (variances[best] + ridge * variances.mean()).sqrt()).t() @ without  # (d', d)
    size = (x @ weight.t()).square().sum(1).mean()
    encoder.project.weight.copy_(weight * (SCALE / size).sqrt())


@torch.no_grad()
def calibrate_terms(checkpoint: Checkpoint, texts: Sequence[str], *, active: int = 128) -> None:
    """Set `terms` to `gain * (mu - mean of mu over the sample - threshold)`.

    The threshold leaves `active` terms a text on average; the gain makes a text's mean self-score `SCALE`.
    """
    encoder, rows = checkpoint.model.encoder.eval(), []
    for tokens in _tokens(checkpoint.tokenizer, texts):
        features = encoder.lpu.features(encoder.hidden(*tokens))
        keep = encoder.ordinary(*tokens)
        mu = pool(features, encoder.lpu.weight, encoder.lpu.bias, keep).values
        rows.append(mu[keep.any(1)])  # a text of unknown words only has no maximum
    mu = torch.cat(rows)  # (N, V)
    mean = mu.mean(0)
    above = mu - mean
    threshold = above.topk(active, dim=1).values[:, -1].mean()
    gain = (SCALE / F.relu(above - threshold).square().sum(1).mean()).sqrt()
    encoder.terms.gain.fill_(gain)
    encoder.terms.bias.copy_(-gain * (mean + threshold))


def _tokens(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> Iterator[tuple[Tensor, Tensor]]:
    ordered = sorted(texts, key=len)
    for start in range(0, len(ordered), 64):
        batch: BatchEncoding = tokenizer(
            ordered[start : start + 64], padding=True, truncation=True, max_length=128, return_tensors="pt"
        )
        yield batch["input_ids"], batch["attention_mask"]
