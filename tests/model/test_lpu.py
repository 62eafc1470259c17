"""The LPU without its (B, L, V) tensor equals the naive form, in value and in gradient."""

from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck

from model import lpu

B, L, D, V = 4, 9, 16, 5000

Inputs = tuple[Tensor, Tensor, Tensor]


@pytest.fixture(autouse=True)
def several_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven predictions, or some thousand words of the texts below, are a block; the last one is smaller."""
    monkeypatch.setattr(lpu, "CPU_BLOCK", 7 * V)


@pytest.fixture
def inputs() -> Inputs:
    return random_inputs((B, L, D), V)


@pytest.fixture
def keep() -> Tensor:
    kept = torch.rand(B, L, generator=torch.Generator().manual_seed(1)) > 0.4
    kept[:, 3] = True
    kept[0, :3] = False  # the first position is not always a kept one
    return kept


@pytest.fixture
def targets() -> Tensor:
    return torch.arange(B * L) * 100


def random_inputs(shape: tuple[int, ...], words: int, seed: int = 0) -> Inputs:
    """Features, weight and bias in double precision, each a leaf that wants a gradient."""
    generator = torch.Generator().manual_seed(seed)
    shapes = (shape, (words, shape[-1]), (words,))
    features, weight, bias = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes)
    return features.requires_grad_(), weight.requires_grad_(), bias.requires_grad_()


def single(inputs: Inputs, features_dtype: torch.dtype = torch.float32) -> Inputs:
    """Leaves of the same numbers in float32, the features in a type of their own."""
    features, weight, bias = (tensor.detach().float() for tensor in inputs)
    return features.to(features_dtype).requires_grad_(), weight.requires_grad_(), bias.requires_grad_()


def naive(features: Tensor, weight: Tensor, bias: Tensor, keep: Tensor) -> Tensor:
    return F.linear(features, weight, bias).masked_fill(~keep[..., None], float("-inf")).amax(1)


def plain_cross_entropy(features: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(F.linear(features, weight, bias), targets, reduction="sum")


def gradients(value: Tensor, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    slope = torch.randn(value.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return torch.autograd.grad(value, inputs, slope.to(value.dtype))


def assert_same(ours: Tensor, wanted: Tensor, inputs: Inputs) -> None:
    """Equal in value, and in every gradient for the same slope."""
    torch.testing.assert_close(ours, wanted)
    for mine, theirs in zip(gradients(ours, inputs), gradients(wanted, inputs), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_pooling_equals_the_naive_maximum_in_value_and_gradient(inputs: Inputs, keep: Tensor) -> None:
    assert_same(lpu.max_pool(*inputs, keep), naive(*inputs, keep), inputs)


@settings(max_examples=40, deadline=None)
@given(
    texts=st.integers(1, 4), tokens=st.integers(1, 7), width=st.integers(1, 5), words=st.integers(1, 40), data=st.data()
)
def test_any_shape_and_any_mask_pool_as_the_naive_form_does(
    texts: int, tokens: int, width: int, words: int, data: st.DataObject
) -> None:
    inputs = random_inputs((texts, tokens, width), words, data.draw(st.integers(0, 99)))
    row = st.lists(st.booleans(), min_size=tokens, max_size=tokens)
    keep = torch.tensor(data.draw(st.lists(row, min_size=texts, max_size=texts)))
    assert_same(lpu.max_pool(*inputs, keep), naive(*inputs, keep), inputs)


def test_pooling_names_the_position_that_won(inputs: Inputs, keep: Tensor) -> None:
    pooled = lpu.pool(*inputs, keep)
    assert keep.gather(1, pooled.positions).all(), "a dropped position won"
    logits = F.linear(*inputs)
    torch.testing.assert_close(logits.gather(1, pooled.positions[:, None]).squeeze(1), pooled.values)


def test_a_row_that_keeps_nothing_pools_to_minus_infinity_and_has_no_gradient(inputs: Inputs, keep: Tensor) -> None:
    keep[2] = False
    values = lpu.max_pool(*inputs, keep)
    assert values[2].isneginf().all()
    assert values[[0, 1, 3]].isfinite().all()
    assert_same(values, naive(*inputs, keep), inputs)
    features_gradient = gradients(lpu.max_pool(*inputs, keep), inputs)[0]
    assert features_gradient[2].count_nonzero() == 0


def test_of_equal_scores_the_first_kept_position_gets_the_whole_gradient(inputs: Inputs) -> None:
    features, weight, bias = (tensor.detach().round().requires_grad_() for tensor in inputs)  # so that sums are exact
    inputs = features, weight, bias
    repeated = features[:, :1].expand(-1, L, -1)  # one token, nine times
    keep = torch.ones(B, L, dtype=torch.bool)
    keep[:, :2] = False
    ours, wanted = lpu.max_pool(repeated, weight, bias, keep), naive(repeated, weight, bias, keep)
    assert_same(ours, wanted, inputs)  # the sum over the positions, of which torch gives each an equal share
    assert (lpu.pool(repeated, weight, bias, keep).positions == 2).all()


def test_inputs_need_not_be_contiguous(inputs: Inputs, keep: Tensor) -> None:
    features, weight, bias = random_inputs((L, B, D), V)
    strided = features.transpose(0, 1), weight.t().contiguous().t(), bias[:1].expand(V)
    mask = keep.t().contiguous().t()
    assert_same(lpu.max_pool(*strided, mask), naive(*strided, mask), (features, weight, bias))
    flat, targets = strided[0].transpose(1, 2).reshape(-1, L).t(), torch.arange(L)  # (L, B * D)
    wide, narrow = torch.randn(B * D, V, dtype=torch.float64).t(), (features, bias)
    ours = lpu.cross_entropy(flat, wide, strided[2], targets)
    wanted = plain_cross_entropy(flat, wide, strided[2], targets)
    for mine, theirs in zip(gradients(ours, narrow), gradients(wanted, narrow), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_recomputed_entries_equal_the_pooled_ones_and_carry_the_same_gradient(inputs: Inputs, keep: Tensor) -> None:
    pooled = lpu.pool(*inputs, keep)
    ids = pooled.values.topk(7, dim=1).indices
    ids[:, 0] = ids[0, 0]  # a word that every text keeps, and one text twice
    ours = lpu.kept(*inputs, pooled.positions.gather(1, ids), ids)
    assert_same(ours, naive(*inputs, keep).gather(1, ids), inputs)


def test_blockwise_cross_entropy_equals_the_plain_one(inputs: Inputs, targets: Tensor) -> None:
    features, weight, bias = inputs
    rows = features.reshape(-1, D)  # 36 rows: five full blocks and a rest
    targets[:5] = 100  # a word may be wanted more than once
    assert_same(
        lpu.cross_entropy(rows, weight, bias, targets), plain_cross_entropy(rows, weight, bias, targets), inputs
    )


def test_gradients_are_those_of_finite_differences() -> None:
    features, weight, bias = random_inputs((2, 3, 4), 11)
    keep = torch.tensor([[True, False, True], [True, True, True]])
    positions, ids = torch.tensor([[0, 2, 2], [1, 0, 1]]), torch.tensor([[5, 0, 10], [5, 5, 3]])
    rows, targets = features.detach().flatten(0, 1).requires_grad_(), torch.tensor([3, 3, 0, 10, 7, 1])
    assert gradcheck(lpu.max_pool, (features, weight, bias, keep))
    assert gradcheck(lpu.kept, (features, weight, bias, positions, ids))
    assert gradcheck(lpu.cross_entropy, (rows, weight, bias, targets))


def test_a_gradient_of_the_gradient_is_refused(inputs: Inputs, keep: Tensor, targets: Tensor) -> None:
    features, weight, bias = inputs
    losses = lpu.max_pool(*inputs, keep).sum(), lpu.cross_entropy(features.flatten(0, 1), weight, bias, targets)
    for loss in losses:
        (first,) = torch.autograd.grad(loss.square(), features, create_graph=True)
        with pytest.raises(RuntimeError, match="once_differentiable"):
            first.sum().backward()


def test_logits_far_apart_give_the_plain_gradient_too(inputs: Inputs, targets: Tensor) -> None:
    features, weight, bias = single(inputs)
    rows = features.reshape(-1, D) * 40  # logits spread over hundreds of nats
    ours = torch.autograd.grad(lpu.cross_entropy(rows, weight, bias, targets), (features, weight, bias))
    plain = plain_cross_entropy(features.reshape(-1, D) * 40, weight, bias, targets)
    wanted = torch.autograd.grad(plain, (features, weight, bias))
    for mine, theirs in zip(ours, wanted, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-4)


def test_nothing_to_predict_is_a_loss_of_zero(inputs: Inputs) -> None:
    features, weight, bias = inputs
    loss = lpu.cross_entropy(features.reshape(-1, D)[:0], weight, bias, torch.empty(0, dtype=torch.long))
    assert loss.item() == 0
    assert all(gradient.count_nonzero() == 0 for gradient in torch.autograd.grad(loss, inputs))


def test_cross_entropy_makes_no_gradient_that_nobody_asks_for(inputs: Inputs, targets: Tensor) -> None:
    rows, weight, bias = inputs[0].flatten(0, 1), inputs[1], inputs[2]
    wanted = plain_cross_entropy(rows, weight, bias, targets)
    with torch.no_grad():
        quiet = lpu.cross_entropy(rows, weight, bias, targets)
    frozen = lpu.cross_entropy(rows, weight.detach(), bias.detach(), targets)
    torch.testing.assert_close(quiet, wanted.detach())
    torch.testing.assert_close(frozen, wanted)
    assert quiet.grad_fn is None
    assert frozen.grad_fn is not None
    made = frozen.grad_fn.saved_tensors  # type: ignore[attr-defined]  # what the function keeps for its backward pass
    assert [None if gradient is None else gradient.shape for gradient in made] == [rows.shape, None, None]


@pytest.mark.parametrize("needed", range(3))
def test_a_single_input_that_wants_a_gradient_gets_it(
    inputs: Inputs, keep: Tensor, targets: Tensor, needed: int
) -> None:
    leaves = [tensor.detach() for tensor in inputs]
    leaf = leaves[needed].requires_grad_()
    features, weight, bias = leaves
    rows = features.flatten(0, 1)
    pairs = (
        (lpu.max_pool(features, weight, bias, keep), naive(features, weight, bias, keep)),
        (lpu.cross_entropy(rows, weight, bias, targets), plain_cross_entropy(rows, weight, bias, targets)),
    )
    for ours, wanted in pairs:
        torch.testing.assert_close(gradients(ours, (leaf,)), gradients(wanted, (leaf,)))


def assert_near(ours: Tensor, wanted: Tensor) -> None:
    """Equal to the accuracy of bfloat16, whose numbers lie up to 2**-8 apart: 1 % of the whole tensor's size."""
    assert (ours.double() - wanted.double()).norm() < 0.01 * wanted.double().norm()


either = pytest.mark.parametrize("features_dtype", [torch.float32, torch.bfloat16])
anywhere = pytest.mark.parametrize("backward_inside", [True, False])


@either
@anywhere
def test_autocast_pools_in_bfloat16_with_gradients_in_the_types_of_the_inputs(
    inputs: Inputs, keep: Tensor, features_dtype: torch.dtype, backward_inside: bool
) -> None:
    mixed = single(inputs, features_dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        values = lpu.max_pool(*mixed, keep)
        positions = lpu.pool(*mixed, keep).positions
        with nullcontext() if backward_inside else torch.autocast("cpu", enabled=False):
            made = gradients(values, mixed)
    assert values.dtype == torch.float32
    assert_near(values, naive(*inputs, keep))
    assert [gradient.dtype for gradient in made] == [features_dtype, torch.float32, torch.float32]
    # Where two positions come near to each other the other one may win, so the winners are those found.
    wanted = gradients(lpu.kept(*inputs, positions, torch.arange(V).expand(B, -1)), inputs)
    for mine, theirs in zip(made, wanted, strict=True):
        assert_near(mine, theirs)


@either
@anywhere
def test_autocast_gives_a_float32_cross_entropy_with_gradients_in_the_types_of_the_inputs(
    inputs: Inputs, targets: Tensor, features_dtype: torch.dtype, backward_inside: bool
) -> None:
    features, weight, bias = single(inputs, features_dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = lpu.cross_entropy(features.flatten(0, 1), weight, bias, targets)
        with nullcontext() if backward_inside else torch.autocast("cpu", enabled=False):
            made = gradients(loss, (features, weight, bias))
    plain = plain_cross_entropy(inputs[0].flatten(0, 1), inputs[1], inputs[2], targets)
    assert loss.dtype == torch.float32
    assert_near(loss, plain)
    assert [gradient.dtype for gradient in made] == [features_dtype, torch.float32, torch.float32]
    for mine, theirs in zip(made, gradients(plain, inputs), strict=True):
        assert_near(mine, theirs)


@either
def test_autocast_leaves_the_kept_entries_as_exact_as_their_features(
    inputs: Inputs, keep: Tensor, features_dtype: torch.dtype
) -> None:
    mixed = single(inputs, features_dtype)
    pooled = lpu.pool(*inputs, keep)
    ids = pooled.values.topk(7, dim=1).indices
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = lpu.kept(*mixed, pooled.positions.gather(1, ids), ids)
    made, wanted = gradients(ours, mixed), gradients(naive(*inputs, keep).gather(1, ids), inputs)
    assert ours.dtype == torch.float32
    assert_near(ours, pooled.values.gather(1, ids))
    for mine, theirs, leaf in zip(made, wanted, mixed, strict=True):
        assert mine.dtype == leaf.dtype
        assert_near(mine, theirs)


@pytest.mark.gpu
def test_a_gpu_says_what_the_cpu_says_and_is_never_waited_for(inputs: Inputs, keep: Tensor, targets: Tensor) -> None:
    there = tuple(tensor.detach().cuda().requires_grad_() for tensor in inputs)
    mask, wanted = keep.cuda(), targets.cuda()
    torch.cuda.set_sync_debug_mode("error")
    try:
        ours = both_gradients(there, mask, wanted)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for mine, theirs in zip(ours, both_gradients(inputs, keep, targets), strict=True):
        torch.testing.assert_close(mine.cpu(), theirs)


def both_gradients(inputs: tuple[Tensor, ...], keep: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
    """Of the pooled maximum plus the cross-entropy over all positions, for features, weight and bias."""
    features, weight, bias = inputs
    loss = lpu.cross_entropy(features.flatten(0, 1), weight, bias, targets)
    return torch.autograd.grad(lpu.max_pool(features, weight, bias, keep).sum() + loss, inputs)
