"""The linear projection unit (LPU) and what is done with its output, without ever holding it whole.

The LPU is the encoder's MLM head: it maps each position to a score for every vocabulary entry, (B, L, d) -> (B, L, V).
At V = 30,522 that tensor is the largest cost of DupMAE in time and memory, so nothing here builds it:

- `max_pool` takes the maximum over positions in blocks of the vocabulary and keeps the arg-max. A maximum passes its
  gradient to one position only, so the gradient over (B, V) is two weighted sums of gathered rows, where the naive form
  makes two more matrix products over (B, L, V). Memory is O(B V).
- `kept` recomputes only the entries that survive a top-k, (B, K), as plain differentiable operations.
- `cross_entropy` walks over predictions in blocks and makes the gradient on the way: logits exist for one block only.

One matrix product is left for the maximum, and three for cross-entropy. Under `torch.autocast` products are made in its
type, sums and losses in float32, and a gradient has the type of its input.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

CPU_BLOCK, GPU_BLOCK = 7 * 2**20, 2**26
"""Scores at a time. 28 MB of float32 about fill a CPU's cache, and the C library hands memory of less than 32 MB out
again, where for more it asks the system for fresh pages each time. A GPU wants few and large kernels."""

LEAST_EXPONENT = -60.0
"""Where gradients of unlikely words end, 1e-26: below 1e-38 they are denormal, 20 times slower to multiply on a CPU."""


@dataclass(frozen=True)
class LinearProjectionUnit:
    """A view of the MLM head: `transform` (dense, GELU, layer norm), then a product with word embeddings and a bias.

    Attributes:
        transform: (.., d) -> (.., d).
        decoder: Linear d -> V whose weight is the word-embedding matrix itself.
    """

    transform: nn.Module
    decoder: nn.Linear

    @property
    def weight(self) -> Tensor:
        """(V, d), tied to the word embeddings."""
        return self.decoder.weight

    @property
    def bias(self) -> Tensor:
        """(V,)."""
        return self.decoder.bias

    def features(self, hidden: Tensor) -> Tensor:
        """(.., d) hidden states -> (.., d) features whose product with `weight` are the logits."""
        features: Tensor = self.transform(hidden)
        return features


class Pooled(NamedTuple):
    """Maximum over positions: `values` (B, V), float32 or wider, and `positions` (B, V) int64, where it was reached."""

    values: Tensor
    positions: Tensor


@torch.no_grad()
def pool(features: Tensor, weight: Tensor, bias: Tensor, keep: Tensor) -> Pooled:
    """`mu` of the paper (equation 7), without a gradient: the maximum over kept positions of each vocabulary score.

    Args:
        features: (B, L, d).
        weight: (V, d).
        bias: (V,).
        keep: (B, L) bool; a row that keeps nothing gives -inf.
    """
    dtype, source = _product_dtype(features), _kept_positions(keep)
    B, W = source.shape
    rows = features.flatten(0, 1)[_rows(source, keep.shape[1])].flatten(0, 1).to(dtype)  # (B * W, d)
    values, positions = [], []
    for block in _blocks(weight, scores=B * W):
        # Words come first, so that the scores of a word in a text lie side by side: the maximum reads them in order.
        best = F.linear(weight[block].to(dtype), rows).unflatten(1, (B, W)).max(dim=2)  # (BLOCK, B) of (BLOCK, B, W)
        values.append(best.values.t())
        positions.append(best.indices.t())
    mu = torch.cat(values, dim=1).to(_sum_dtype(features)) + bias  # (B, V); every position has the same bias
    nothing = ~keep.any(1, keepdim=True)
    return Pooled(mu.masked_fill(nothing, float("-inf")), source.gather(1, torch.cat(positions, dim=1)))


def _kept_positions(keep: Tensor) -> Tensor:
    """(B, L) bool -> (B, W) int64, the positions each row keeps, its first one repeated up to the same W.

    W is what the fullest row keeps. To know it on a GPU is to wait for all that was asked of it, so there W is L.
    """
    order = keep.int().argsort(dim=1, descending=True, stable=True)
    count = keep.sum(1, keepdim=True)
    W = max(1, int(count.max())) if keep.device.type == "cpu" else keep.shape[1]
    return torch.where(torch.arange(W, device=keep.device) < count, order[:, :W], order[:, :1])


def max_pool(features: Tensor, weight: Tensor, bias: Tensor, keep: Tensor) -> Tensor:
    """Differentiable `pool`: (B, V), with its exact gradient for features, weight and bias.

    Of equal scores the first position gets the gradient; a row that keeps nothing passes none on.
    """
    pooled: Tensor = _MaxPool.apply(features, weight, bias, keep)  # type: ignore[no-untyped-call]  # torch has none
    return pooled.masked_fill(~keep.any(1, keepdim=True), float("-inf"))


class _MaxPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, bias: Tensor, keep: Tensor) -> Tensor:
        pooled = pool(features, weight, bias, keep)
        ctx.save_for_backward(features, weight, _rows(pooled.positions, features.shape[1]).int())
        ctx.dtype = _product_dtype(features)
        return pooled.values

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        features, weight, rows = ctx.saved_tensors
        slope = grad.to(ctx.dtype)  # (B, V)
        grad_features = grad_weight = None
        if ctx.needs_input_grad[0]:
            won = _sum_by_row(weight.to(ctx.dtype), rows, slope, features.shape[:2].numel())
            grad_features = won.view(features.shape)
        if ctx.needs_input_grad[1]:  # d weight[v] = sum over b of slope[b, v] * features[row[b, v]]
            table = features.flatten(0, 1).to(ctx.dtype)
            grad_weight = F.embedding_bag(rows.t(), table, mode="sum", per_sample_weights=slope.t())
        return grad_features, grad_weight, grad.sum(0), None


def _sum_by_row(weight: Tensor, rows: Tensor, slope: Tensor, count: int) -> Tensor:
    """(count, d): the sum, over the words v of the texts b that each row won, of `slope[b, v] * weight[v]`."""
    rows, order = rows.flatten().sort(stable=True)
    starts = torch.searchsorted(rows, torch.arange(count, device=rows.device, dtype=rows.dtype))
    words = order % weight.shape[0]
    return F.embedding_bag(words, weight, starts, mode="sum", per_sample_weights=slope.flatten()[order])


def kept(features: Tensor, weight: Tensor, bias: Tensor, positions: Tensor, ids: Tensor) -> Tensor:
    """The pooled values of a few vocabulary entries, differentiable.

    Args:
        features: (B, L, d).
        weight: (V, d).
        bias: (V,).
        positions: (B, K) where each entry reached its maximum.
        ids: (B, K) vocabulary entries.

    Returns:
        (B, K), equal to `pool(...).values.gather(1, ids)`, but for rows that keep nothing, where it means nothing.
    """
    winners = F.embedding(_rows(positions, features.shape[1]), features.flatten(0, 1))  # (B, K, d)
    return (winners * F.embedding(ids, weight)).sum(-1) + bias[ids]


def cross_entropy(features: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
    """Sum of the cross-entropies of `features @ weight.T + bias` (N, V) against `targets` (N,), in nats.

    Logits are never held whole, and a gradient nobody asks for is not made. A sum, so that the caller divides by the
    predictions of a whole step, over all its parts and ranks; the mean of means would weigh a prediction by how many
    others shared its part.
    """
    if not torch.is_grad_enabled():  # a Function is told what could have a gradient, not whether anyone asks for it
        features, weight, bias = features.detach(), weight.detach(), bias.detach()
    loss: Tensor = _CrossEntropy.apply(features, weight, bias, targets)  # type: ignore[no-untyped-call]  # as above
    return loss


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
        dtype, sum_dtype = _product_dtype(features), _sum_dtype(features)
        grads = [
            torch.zeros_like(tensor, dtype=sum_dtype) if needed else None
            for tensor, needed in zip((features, weight, bias), ctx.needs_input_grad[:3], strict=True)
        ]
        grad_features, grad_weight, grad_bias = grads
        loss = features.new_zeros((), dtype=sum_dtype)
        table, shift = weight.to(dtype), bias.to(dtype)
        for block in _blocks(features, scores=len(table)):
            rows = features[block].to(dtype)
            scores = F.linear(rows, table, shift).to(sum_dtype)  # (BLOCK, V)
            loss += _to_slope(scores, targets[block, None])
            slope = scores.to(dtype)
            if grad_features is not None:
                grad_features[block] = slope @ table
            if grad_weight is not None:
                _add_product(grad_weight, slope.t(), rows)
            if grad_bias is not None:
                grad_bias += scores.sum(0)
        ctx.save_for_backward(*grads)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return *(None if made is None else made * grad for made in ctx.saved_tensors), None


def _to_slope(scores: Tensor, targets: Tensor) -> Tensor:
    """The summed cross-entropy of (N, V) against (N, 1), which leaves its gradient, softmax - one-hot, in `scores`."""
    scores -= scores.amax(1, keepdim=True)
    right = scores.gather(1, targets)
    total = scores.clamp_(min=LEAST_EXPONENT).exp_().sum(1, keepdim=True)
    scores.div_(total).scatter_add_(1, targets, -torch.ones_like(total))
    return (total.log() - right).sum()


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """`total += left @ right`, without the product in between where all have one type."""
    if total.dtype == left.dtype:
        total.addmm_(left, right)
    else:
        total += left @ right


def _product_dtype(features: Tensor) -> torch.dtype:
    """What matrix products are made in: the type of `torch.autocast` where it is on, that of the features elsewhere."""
    device = features.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else features.dtype


def _sum_dtype(features: Tensor) -> torch.dtype:
    """What sums and losses are made in: float32, or float64 where the features are."""
    return torch.promote_types(features.dtype, torch.float32)


def _blocks(table: Tensor, *, scores: int) -> Iterator[slice]:
    """Slices of the rows of `table`, as many rows together as make a block, where each has so many scores."""
    size = max(1, (CPU_BLOCK if table.device.type == "cpu" else GPU_BLOCK) // scores)
    return (slice(start, start + size) for start in range(0, len(table), size))


def _rows(positions: Tensor, L: int) -> Tensor:
    """(B, K) positions in their texts -> (B, K) rows of (B * L, d)."""
    return positions + torch.arange(len(positions), device=positions.device)[:, None] * L
