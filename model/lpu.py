"""The linear projection unit (LPU) and what is done with its output, without ever holding it whole.

The LPU is the encoder's MLM head: it maps each position to a score for every vocabulary entry, (B, L, d) -> (B, L, V).
At V = 30,522 that tensor is the largest cost of DupMAE in time and memory, so nothing here builds it:

- `max_pool` takes the maximum over positions in vocabulary blocks and keeps the arg-max. A maximum passes its gradient
  to one position only, so the gradient over (B, V) is two weighted sums of gathered rows. Memory is O(B V).
- `kept` recomputes only the entries that survive a top-k, (B, K), as plain differentiable operations.
- `cross_entropy` walks over rows in chunks and makes the gradient on the way, so that logits exist for one chunk.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BLOCK = 2048
"""Vocabulary entries (or rows) at a time: 32 x 128 x 2048 float32 is 32 MB, and the product still fills the cores."""


LEAST_LOG_P = -60.0
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
    """Maximum over positions: `values` (B, V) float and `positions` (B, V) int64, where each was reached."""

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
    # A dropped position repeats the row's first kept one, so the maximum needs no copy of the logits to be masked.
    L = keep.shape[1]
    source = torch.where(keep, torch.arange(L, device=keep.device), keep.int().argmax(1, keepdim=True))  # (B, L)
    repeated = features.gather(1, source[..., None].expand_as(features))
    values, positions = [], []
    for start in range(0, weight.shape[0], BLOCK):
        block = slice(start, start + BLOCK)
        best = F.linear(repeated, weight[block], bias[block]).max(dim=1)  # (B, BLOCK) of (B, L, BLOCK)
        values.append(best.values)
        positions.append(best.indices)
    mu = torch.cat(values, dim=1).float().masked_fill(~keep.any(1, keepdim=True), float("-inf"))
    return Pooled(mu, source.gather(1, torch.cat(positions, dim=1)))


def max_pool(features: Tensor, weight: Tensor, bias: Tensor, keep: Tensor) -> Tensor:
    """Differentiable `pool`: (B, V), exact gradient for features, weight and bias."""
    pooled: Tensor = _MaxPool.apply(features, weight, bias, keep)  # type: ignore[no-untyped-call]  # torch has none
    return pooled


class _MaxPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, bias: Tensor, keep: Tensor) -> Tensor:
        pooled = pool(features, weight, bias, keep)
        ctx.save_for_backward(features, weight, pooled.positions)
        return pooled.values

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        features, weight, positions = ctx.saved_tensors
        B, L, d = features.shape
        V = weight.shape[0]
        grad = grad.to(features.dtype)
        rows = positions + torch.arange(B, device=positions.device)[:, None] * L  # (B, V) into (B * L)
        # d weight[v] = sum over b of grad[b, v] * features[b, argmax]: V bags of B rows each
        grad_weight = _weighted_sums(features.reshape(B * L, d), rows.t().reshape(-1), grad.t().reshape(-1), bags=V)
        # d features[b, l] = sum over the v that l won of grad[b, v] * weight[v]: B * L bags, sizes by count
        order = rows.reshape(-1).argsort(stable=True)
        sizes = torch.bincount(rows.reshape(-1), minlength=B * L)
        offsets = sizes.cumsum(0) - sizes
        grad_features = F.embedding_bag(
            order % V, weight.to(features.dtype), offsets, mode="sum", per_sample_weights=grad.reshape(-1)[order]
        )
        return grad_features.view(B, L, d), grad_weight.to(weight.dtype), grad.sum(0).to(weight.dtype), None


def _weighted_sums(table: Tensor, rows: Tensor, weights: Tensor, *, bags: int) -> Tensor:
    """(N, d) table, equal bags of consecutive `rows` -> (bags, d)."""
    offsets = torch.arange(bags, device=rows.device) * (rows.numel() // bags)
    return F.embedding_bag(rows, table, offsets, mode="sum", per_sample_weights=weights)


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
    d = features.shape[-1]
    winners = features.gather(1, positions[..., None].expand(-1, -1, d))  # (B, K, d)
    return (winners * F.embedding(ids, weight)).sum(-1) + bias[ids]


def cross_entropy(features: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
    """Sum of the cross-entropies of `features @ weight.T + bias` (N, V) against `targets` (N,), in nats.

    Logits are never held whole. A sum, so that the caller divides by the predictions of a whole step, over all its parts
    and ranks; the mean of means would weigh a prediction by how many others shared its part.
    """
    if not targets.numel():
        return features.sum() * 0.0
    loss: Tensor = _CrossEntropy.apply(features, weight, bias, targets)  # type: ignore[no-untyped-call]  # as above
    return loss


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
        grad_features, grad_weight, grad_bias = (torch.zeros_like(t) for t in (features, weight, bias))
        loss = features.new_zeros((), dtype=torch.float32)
        for start in range(0, targets.numel(), BLOCK):
            rows = slice(start, start + BLOCK)
            log_p = F.linear(features[rows], weight, bias).float().log_softmax(-1)  # (BLOCK, V)
            wanted = targets[rows, None]
            loss -= log_p.gather(1, wanted).sum()
            slope = (
                log_p.clamp_(min=LEAST_LOG_P)
                .exp_()
                .scatter_add_(1, wanted, -torch.ones_like(log_p[:, :1]))
                .to(features.dtype)
            )
            grad_features[rows] = slope @ weight.to(slope.dtype)
            grad_weight += (slope.t() @ features[rows]).to(weight.dtype)
            grad_bias += slope.sum(0).to(bias.dtype)
        ctx.save_for_backward(grad_features, grad_weight, grad_bias)
        return loss

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        grad_features, grad_weight, grad_bias = ctx.saved_tensors
        return grad_features * grad, grad_weight * grad, grad_bias * grad, None
