"""The LPU without its (B, L, V) tensor equals the naive form, in value and in gradient."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from model import lpu

B, L, D, V = 4, 9, 16, 5000


@pytest.fixture
def inputs() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = ((B, L, D), (V, D), (V,))
    features, weight, bias = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes)
    return features.requires_grad_(), weight.requires_grad_(), bias.requires_grad_()


@pytest.fixture
def keep() -> Tensor:
    kept = torch.rand(B, L, generator=torch.Generator().manual_seed(1)) > 0.4
    kept[:, 3] = True
    kept[0, :3] = False  # the first position is not always a kept one
    return kept


def naive(features: Tensor, weight: Tensor, bias: Tensor, keep: Tensor) -> Tensor:
    return F.linear(features, weight, bias).masked_fill(~keep[..., None], float("-inf")).amax(1)


def gradients(value: Tensor, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    slope = torch.randn(value.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return torch.autograd.grad((value * slope).sum(), inputs)


def test_pooling_equals_the_naive_maximum_in_value_and_gradient(
    inputs: tuple[Tensor, Tensor, Tensor], keep: Tensor
) -> None:
    ours, wanted = lpu.max_pool(*inputs, keep), naive(*inputs, keep)
    torch.testing.assert_close(ours.double(), wanted, atol=1e-5, rtol=1e-5)
    for mine, theirs in zip(gradients(ours.double(), inputs), gradients(wanted, inputs), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)


def test_pooling_names_the_position_that_won(inputs: tuple[Tensor, Tensor, Tensor], keep: Tensor) -> None:
    features, weight, bias = inputs
    pooled = lpu.pool(*inputs, keep)
    assert keep.gather(1, pooled.positions).all(), "a dropped position won"
    logits = F.linear(features, weight, bias)
    torch.testing.assert_close(
        logits.gather(1, pooled.positions[:, None]).squeeze(1), pooled.values.double(), atol=1e-5, rtol=1e-5
    )


def test_a_row_that_keeps_nothing_pools_to_minus_infinity(inputs: tuple[Tensor, Tensor, Tensor], keep: Tensor) -> None:
    keep[2] = False
    values = lpu.pool(*inputs, keep).values
    assert values[2].isneginf().all()
    assert values[[0, 1, 3]].isfinite().all()


def test_recomputed_entries_equal_the_pooled_ones_and_carry_the_same_gradient(
    inputs: tuple[Tensor, Tensor, Tensor], keep: Tensor
) -> None:
    pooled = lpu.pool(*inputs, keep)
    ids = pooled.values.topk(7, dim=1).indices
    ours = lpu.kept(*inputs, pooled.positions.gather(1, ids), ids)
    wanted = naive(*inputs, keep).gather(1, ids)
    torch.testing.assert_close(ours, wanted)
    for mine, theirs in zip(gradients(ours, inputs), gradients(wanted, inputs), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_chunked_cross_entropy_equals_the_plain_one(
    inputs: tuple[Tensor, Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lpu, "BLOCK", 7)  # 36 rows: five full chunks and a rest
    features, weight, bias = inputs
    rows, targets = features.reshape(-1, D), torch.arange(B * L) * 100
    ours = lpu.cross_entropy(rows, weight, bias, targets) * 3
    wanted = F.cross_entropy(F.linear(rows, weight, bias), targets, reduction="sum") * 3
    torch.testing.assert_close(ours.double(), wanted, atol=1e-5, rtol=1e-5)
    for mine, theirs in zip(torch.autograd.grad(ours, inputs), torch.autograd.grad(wanted, inputs), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=1e-5)


def test_logits_far_apart_give_the_plain_gradient_too(inputs: tuple[Tensor, Tensor, Tensor]) -> None:
    features, weight, bias = (tensor.detach().float().requires_grad_() for tensor in inputs)
    rows, targets = features.reshape(-1, D) * 40, torch.arange(B * L) * 100  # logits spread over hundreds of nats
    ours = torch.autograd.grad(lpu.cross_entropy(rows, weight, bias, targets), (features, weight, bias))
    plain = F.cross_entropy(F.linear(features.reshape(-1, D) * 40, weight, bias), targets, reduction="sum")
    wanted = torch.autograd.grad(plain, (features, weight, bias))
    for mine, theirs in zip(ours, wanted, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-4)


def test_nothing_to_predict_is_a_loss_of_zero(inputs: tuple[Tensor, Tensor, Tensor]) -> None:
    features, weight, bias = inputs
    nothing = torch.empty(0, dtype=torch.long)
    assert lpu.cross_entropy(features.reshape(-1, D)[:0], weight, bias, nothing).item() == 0
