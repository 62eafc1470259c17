"""int8 products for the graph: weights with one scale per output, activations with one scale per row (or text).

On 200 SciFact abstracts and a 6-layer model the [CLS] vectors err by .24 in the plain form (relative, against float32)
and by .09 with the first three additions marked (+); the ten best of 60 queries agree by .89 and by .95. The fourth
takes the error of [CLS] vectors from .10 to .07, that of words' weights from .041 to .032 (60 texts of FairytaleQA).

- A scale over the whole batch, which is what dynamic quantization does, would let a text's neighbours change its
  vector. A scale per row costs a few passes over the activations and keeps a text's vector its own; it is also nearer
  to float32 than a fixed scale (.085 against .13 to .15 for the hidden states).
- (+) What GELU gives is nearly one-sided and is quantized so. (+) The [CLS] projection, one row a text, stays float32.
  (+) A few channels of a layer norm's output are many times larger than the rest. Where that output is multiplied, each
  channel is divided by (its peak)^.7 / (its weights' peak)^.3, and the weights are multiplied by it: SmoothQuant (arXiv
  2211.10438, equation 4). Peaks are measured on the texts that the export is given.
- (+) Weights are rounded one column after the other, and what each rounding changed in the product, for inputs such as
  those texts give, is taken up by the columns that follow: GPTQ (arXiv 2210.17323). It costs nothing when served.
- Weights use 7 of 8 bits. x86 without VNNI multiplies unsigned by signed bytes in pairs and saturates at 16 bits:
  2 * 255 * 64 = 32,640 stays below, so every kernel gives the same integers.
- The tied matrix lies in the file once, as (V, d), signed as the LPU wants it: what has to be converted when the graph
  is loaded takes memory that is not given back. The LPU walks over it in blocks, laid out as ONNX Runtime's kernel
  reads them, and their scores are reduced to the maximum while they are in the cache. That maximum is a pooling, since
  ONNX Runtime's reductions take several times as long: so the scores are whole numbers in float32. They are exact up
  to 2,064 dimensions; what is larger is rounded, which keeps the order, so that the maximum is the same before and
  after.
- Attention is one node, ONNX Runtime's `MultiHeadAttention`, and so is rounding by rows, `QuantizeLinear` by blocks of
  a whole row. Both give the bits of the nodes they stand for.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from model.dupmae import FusedEncoder
from model.products import POSITIONS, TIED, TRANSFORM, FloatProducts, Heads, Weights, Words, blocks
from model.writer import Writer

LIMIT = 64
"""Weights lie within -64..64."""

MIDDLE = 128
"""Zero of activations of either sign, which lie within 1..255."""

LOW = 16
"""Zero of activations with a known lower bound, which lie within 0..255."""

POOLED = 32
"""Rows that one pooling takes the maximum of: up to so many, ONNX Runtime's takes a fifth of the time a row."""

COLUMNS = 1840
"""Of the words' scores that exist at a time: of more than 2,045, ONNX Runtime pools one after the other. Fewer were no
faster."""

LEAST = np.float32(1e-12)
"""Keeps an all-zero row from dividing by zero."""

SMOOTHED = (".attention.self", ".intermediate.dense", f"{TRANSFORM}.dense")
"""Ends of the names of products whose left side a layer norm gives."""

SHARE = 0.7
"""Of the difficulty of rounding a smoothed channel that its weights take over. They bear more than half of it, since
their rounding is compensated."""

DAMPING = 0.01
"""Added to the variance of each input, as a share of their mean, so that what the texts never showed is not bent."""


class Inputs(NamedTuple):
    """What came into a product: `peaks` float32 (K,), of the sizes of each channel; `gram` float64 (K, K), x.T @ x."""

    peaks: NDArray[np.float32]
    gram: NDArray[np.float64]


@torch.no_grad()
def seen_inputs(encoder: FusedEncoder, texts: Iterable[Sequence[int]]) -> dict[str, Inputs]:
    """Run the network over texts, given as input ids, and note what comes into each product of its layers."""
    seen: dict[str, Inputs] = {}

    def note(name: str, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        rows = inputs[0].flatten(end_dim=-2)
        peaks, gram = rows.abs().amax(dim=0).numpy(), (rows.t() @ rows).double().numpy()
        if name in seen:
            peaks, gram = np.maximum(peaks, seen[name].peaks), gram + seen[name].gram
        seen[name] = Inputs(peaks, gram)

    layers = [f"{TRANSFORM}.dense"]
    for number in range(encoder.mlm.config.num_hidden_layers):
        layer = f"bert.encoder.layer.{number}"
        layers += [f"{layer}.attention.self.query", f"{layer}.attention.output.dense"]
        layers += [f"{layer}.intermediate.dense", f"{layer}.output.dense"]
    hooks = [
        encoder.mlm.get_submodule(layer).register_forward_pre_hook(partial(note, layer.removesuffix(".query")))
        for layer in layers
    ]
    for ids in texts:
        input_ids = torch.tensor([ids])
        encoder.lpu.features(encoder.hidden(input_ids, torch.ones_like(input_ids)))
    for hook in hooks:
        hook.remove()
    return seen


class Quantized(NamedTuple):
    """A weight matrix (N, K) as `values` int8 (K, N), times `scales` float32 (N,)."""

    values: NDArray[np.int8]
    scales: NDArray[np.float32]


class Rounded(NamedTuple):
    """A layer's weight, and what its input is multiplied by first: float32 (K,), if by anything."""

    smoothing: NDArray[np.float32] | None
    weight: Quantized


def quantize(weight: NDArray[np.float32]) -> Quantized:
    """Round a matrix (N, K) to nearest, with one symmetric scale per row.

    >>> quantize(np.float32([[0.5, -1.0], [0.0, 4.0]])).values.T.tolist()
    [[32, -64], [0, 64]]
    """
    scales = np.maximum(np.abs(weight).max(axis=1), LEAST) / np.float32(LIMIT)
    return Quantized(np.rint(weight / scales[:, None]).T.astype(np.int8), scales)


def compensated(weight: NDArray[np.float32], gram: NDArray[np.float64]) -> Quantized:
    """As `quantize`, but the sum over inputs of the squared error of the *product* is small, not that of the weights.

    A column's error is spread over the columns that are not rounded yet, by the inverse of what the inputs have in
    common; the columns with the largest inputs come first, while there are many left to spread over.

    Args:
        weight: (N, K).
        gram: (K, K), of the inputs.
    """
    scales = quantize(weight).scales
    order = np.argsort(-np.diag(gram), kind="stable")
    common = torch.from_numpy(gram[np.ix_(order, order)])
    common += DAMPING * common.diag().mean().clamp(min=1e-9) * torch.eye(len(order), dtype=torch.double)
    spread = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(common)), upper=True)
    left = torch.from_numpy((weight / scales[:, None])[:, order]).double()
    values = np.empty(weight.T.shape, np.int8)
    for at, column in enumerate(order):
        rounded = left[:, at].round().clamp(-LIMIT, LIMIT)
        values[column] = rounded.numpy()
        error = (left[:, at] - rounded) / spread[at, at]
        left[:, at + 1 :] -= error[:, None] * spread[at, at + 1 :]
    return Quantized(values, scales)


class Int8Products:
    """`products.Products` in int8."""

    def __init__(self, weights: Weights, inputs: Mapping[str, Inputs]) -> None:
        """Of a network's weights, and of what came into its products by their names; without it they are rounded."""
        self._weights = weights
        self._inputs = inputs
        self._float = FloatProducts(weights)
        self._tied = quantize(weights[TIED])

    def embed(self, writer: Writer, ids: ir.Value) -> ir.Value:
        """(B, L) -> (B, L, d)."""
        rows = writer.op("Cast", writer.op("Gather", self._rows(writer), ids), to=ir.DataType.FLOAT)
        scales = writer.op("Gather", writer.constant(self._tied.scales[:, None], "tied.scales.column"), ids)
        return writer.op("Mul", rows, scales)

    def linear(self, writer: Writer, x: ir.Value, name: str, *, lowest: float | None = None) -> ir.Value:
        """(.., K) -> (.., N)."""
        if name == "project":
            return self._float.linear(writer, x, name)
        y, bias = self._product(writer, x, name, lowest), self._weights.get(f"{name}.bias")
        return y if bias is None else writer.op("Add", y, writer.constant(bias, f"{name}.bias"))

    def best(self, writer: Writer, rows: ir.Value, words: Words | None) -> Sequence[ir.Value]:
        """(B, n, d) -> (B, S) and (B, n), or (B, V). A text has one step, so that the maximum is one of integers."""
        steps = writer.op("Squeeze", _two_sided(writer, rows, axes=[1, 2]), writer.constant([1, 2]))  # (B,)
        values = writer.op("Unsqueeze", _unsigned(writer, rows, steps, MIDDLE, axis=0), writer.constant([1]))
        columns = (
            writer.op("Transpose", block, perm=[1, 0]) for block in blocks(writer, self._rows(writer), words, COLUMNS)
        )
        best = [writer.op("Concat", *(self._largest(writer, values, block) for block in columns), axis=3)]
        if words:
            own = writer.op("Gather", self._rows(writer), writer.op("Unsqueeze", words.own, writer.constant([1])))
            best.append(self._largest(writer, values, writer.op("Transpose", own, perm=[0, 1, 3, 2])))
        column = writer.op("Unsqueeze", steps, writer.constant([1]))
        return [self._meant(writer, mu, column, of) for mu, of in zip(best, words or [None], strict=True)]

    def _largest(self, writer: Writer, values: ir.Value, columns: ir.Value) -> ir.Value:
        """Of each column's products with the rows of a text: (B, 1, n, d), (d, m) or (B, 1, d, m) -> (B, 1, 1, m)."""
        one, middle = writer.scalar(1), writer.constant(np.uint8(MIDDLE))
        scores = writer.op("MatMulIntegerToFloat", values, columns, one, one, middle, domain="com.microsoft")
        left = len(self._weights[POSITIONS])  # no text has more rows
        while left > 1:
            scores = writer.op("MaxPool", scores, kernel_shape=[POOLED, 1], strides=[POOLED, 1], ceil_mode=1)
            left = -(-left // POOLED)
        return scores

    def _meant(self, writer: Writer, best: ir.Value, steps: ir.Value, words: ir.Value | None) -> ir.Value:
        """What whole numbers stand for: (B, 1, 1, m), (B, 1), (m,) or (B, m) -> (B, m)."""
        scales = writer.constant(self._tied.scales, "tied.scales")
        if words:
            scales = writer.op("Gather", scales, words)
        return writer.op("Mul", writer.op("Squeeze", best, writer.constant([1, 2])), writer.op("Mul", scales, steps))

    def visible(self, writer: Writer, attention_mask: ir.Value) -> ir.Value:
        """(B, L), as int32."""
        return writer.op("Cast", attention_mask, to=ir.DataType.INT32)

    def attend(self, writer: Writer, x: ir.Value, name: str, visible: ir.Value, heads: Heads) -> ir.Value:
        """(B, L, d) -> (B, L, d). Its two products are in float32: neither side is known beforehand."""
        q, k, v = writer.ops("Split", self._product(writer, x, name), outputs=3, axis=-1, num_outputs=3)
        bias = writer.constant(self._weights[f"{name}.bias"], f"{name}.bias")
        return writer.op("MultiHeadAttention", q, k, v, bias, visible, domain="com.microsoft", num_heads=heads.number)

    def _rows(self, writer: Writer) -> ir.Value:
        """The tied matrix: (V, d), -64..64."""
        return writer.constant(self._tied.values.T.copy(), TIED)

    def _product(self, writer: Writer, x: ir.Value, name: str, lowest: float | None = None) -> ir.Value:
        """`x @ weight.T`: (.., K) -> (.., N)."""
        smoothing, weight = self.rounded(name)
        if smoothing is not None:
            x = writer.op("Mul", x, writer.constant(smoothing, f"{name}.smoothing"))
        step = _one_sided(writer, x, lowest) if lowest else _two_sided(writer, x, axes=[-1])
        zero = LOW if lowest else MIDDLE
        rows = _unsigned(writer, x, step, zero, axis=-1, block_size=len(weight.values))
        product = writer.op(
            "MatMulIntegerToFloat",
            rows,
            writer.constant(weight.values, f"{name}.weight"),
            writer.scalar(1),
            writer.constant(weight.scales, f"{name}.weight.scales"),
            writer.constant(np.uint8(zero)),
            domain="com.microsoft",
        )
        return writer.op("Mul", product, step)

    def rounded(self, name: str) -> Rounded:
        """The layer of this name."""
        dense, seen = self._weights[f"{name}.weight"], self._inputs.get(name)
        if seen is None:
            return Rounded(None, quantize(dense))
        if not name.endswith(SMOOTHED):
            return Rounded(None, compensated(dense, seen.gram))
        largest = np.maximum(np.abs(dense).max(axis=0), 1e-5)
        smoothing = np.maximum(seen.peaks, 1e-5) ** SHARE / largest ** (1 - SHARE)
        gram = seen.gram / np.outer(smoothing, smoothing)
        return Rounded(1 / smoothing, compensated(dense * smoothing, gram))


def _unsigned(writer: Writer, x: ir.Value, steps: ir.Value, zero: int, **how: Any) -> ir.Value:
    """uint8 of the shape of `x`, in steps from `zero`; `how` says which values a step is for."""
    zeros = writer.op("Expand", writer.constant(np.uint8(zero)), writer.op("Shape", steps))
    return writer.op("QuantizeLinear", x, steps, zeros, **how)


def _two_sided(writer: Writer, x: ir.Value, *, axes: list[int]) -> ir.Value:
    """The step between two values, one over `axes`, which are kept as 1."""
    largest = writer.op("ReduceMax", writer.op("Abs", x), writer.constant(axes), keepdims=1)
    step = writer.op("Mul", largest, writer.scalar(1 / (MIDDLE - 1)))
    return writer.op("Max", step, writer.constant(LEAST))


def _one_sided(writer: Writer, x: ir.Value, lowest: float) -> ir.Value:
    """The step between two values, one a row, for values that never fall below `lowest`."""
    largest = writer.op("ReduceMax", x, writer.constant([-1]), keepdims=1)
    step = writer.op("Mul", largest, writer.scalar(1 / (255 - LOW)))
    return writer.op("Max", step, writer.scalar(-lowest / LOW))
