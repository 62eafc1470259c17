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
- The tied matrix lies in the file once, as (V, d). In the LPU of documents it is the left side, so that the scores of
  one entry of the vocabulary lie side by side, and it is walked over in blocks, whose scores (1 MB for 256 tokens) are
  reduced to their maximum while they are in the cache: half the time of the whole (n, V) and the maximum over its
  columns. The left side is the unsigned one: weights lie within 0..128 there, and activations are signed. Up to 30
  rows, which most queries have, it is the right side, signed, and laid out beforehand as the kernel reads it. Both
  give the same integers. The cost is that ONNX Runtime makes both when it loads the graph, and holds them beside the
  matrix that the embedding gathers from.
- Attention is one node, ONNX Runtime's `MultiHeadAttention`, and so is rounding by rows, `QuantizeLinear` by blocks of
  a whole row. Both give the bits of the nodes they stand for.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from model.dupmae import FusedEncoder
from model.graph import TIED, TRANSFORM, FloatProducts, Heads, Weights, Words, blocks
from model.writer import Writer

LIMIT = 64
"""Weights lie within -64..64."""

MIDDLE = 128
"""Zero of activations of either sign, which lie within 1..255."""

LOW = 16
"""Zero of activations with a known lower bound, which lie within 0..255."""

FEW = 30
"""Rows up to which the tied matrix is the right side in the LPU, as ONNX Runtime's kernels want a short query."""

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
    """`graph.Products` in int8."""

    def __init__(self, weights: Weights, inputs: Mapping[str, Inputs]) -> None:
        """Of a network's weights, and of what came into its products by their names; without it they are rounded."""
        self._weights = weights
        self._inputs = inputs
        self._float = FloatProducts(weights)
        self._tied = quantize(weights[TIED])
        self._width = weights[TIED].shape[1]

    def embed(self, writer: Writer, ids: ir.Value) -> ir.Value:
        """(B, L) -> (B, L, d)."""
        rows = writer.op("Cast", writer.op("Gather", self._rows(writer), ids), to=ir.DataType.FLOAT)
        rows = writer.op("Sub", rows, writer.constant(np.float32(LIMIT)))
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
        values = writer.op("QuantizeLinear", rows, steps, axis=0, output_dtype=ir.DataType.INT8)
        few = writer.op("LessOrEqual", writer.op("Size", values), writer.constant(FEW * self._width))
        short = self._best_of_few(writer.body(), rows, steps, words)
        long = self._best_of_many(writer.body(), values, words)
        best = [writer.op("If", few, then_branch=short, else_branch=long)]  # (B, S) or (B, V)
        if words:
            columns = writer.op("Transpose", values, perm=[0, 2, 1])
            scores = self._times(writer, writer.op("Gather", self._rows(writer), words.own), columns)  # (B, n, n)
            best.append(writer.op("ReduceMax", scores, writer.constant([2]), keepdims=0))
        column = writer.op("Unsqueeze", steps, writer.constant([1]))
        return [self._meant(writer, mu, column, of) for mu, of in zip(best, words or [None], strict=True)]

    def _meant(self, writer: Writer, best: ir.Value, steps: ir.Value, words: ir.Value | None) -> ir.Value:
        """What integers stand for: (B, m), (B, 1), (m,) or (B, m) -> (B, m)."""
        scales = writer.constant(self._tied.scales, "tied.scales")
        if words:
            scales = writer.op("Gather", scales, words)
        return writer.op("Mul", writer.op("Cast", best, to=ir.DataType.FLOAT), writer.op("Mul", scales, steps))

    def _best_of_few(self, writer: Writer, rows: ir.Value, steps: ir.Value, words: Words | None) -> ir.Graph:
        """(B, n, d), (B,) -> (B, S) or (B, V) integers, by rows times the transposed matrix."""
        middle = writer.constant(np.uint8(MIDDLE))
        zeros = writer.op("Expand", middle, writer.op("Shape", steps))
        values = writer.op("QuantizeLinear", rows, steps, zeros, axis=0)
        table = writer.op("Gather", self._rows(writer), words.expansions) if words else self._rows(writer)
        wide = writer.op("Cast", table, to=ir.DataType.FLOAT)
        signed = writer.op("QuantizeLinear", wide, writer.constant(np.float32(1)), writer.constant(np.int8(-LIMIT)))
        scores = writer.op("MatMulInteger", values, writer.op("Transpose", signed, perm=[1, 0]), middle)  # (B, n, V)
        best = writer.op("ReduceMax", scores, writer.constant([1]), keepdims=0)
        return writer.subgraph([], [best], "few_rows")

    def _best_of_many(self, writer: Writer, values: ir.Value, words: Words | None) -> ir.Graph:
        """(B, n, d) -> (B, S) or (B, V) integers, by blocks of the matrix times the columns."""
        lines = writer.op("Reshape", values, writer.constant([-1, self._width]))
        columns = writer.op("Transpose", lines, perm=[1, 0])  # (d, B * n)
        texts = writer.op("Concat", writer.constant([-1]), writer.op("Shape", values, end=2), axis=0)
        best = []
        for block in blocks(writer, self._rows(writer), words):
            scores = writer.op("Reshape", self._times(writer, block, columns), texts)  # (BLOCK, B, n)
            best.append(writer.op("ReduceMax", scores, writer.constant([2]), keepdims=0))
        together = writer.op("Transpose", writer.op("Concat", *best, axis=0), perm=[1, 0])
        return writer.subgraph([], [together], "many_rows")

    def _times(self, writer: Writer, rows: ir.Value, columns: ir.Value) -> ir.Value:
        """Rows of the tied matrix, times int8 columns."""
        return writer.op("MatMulInteger", rows, columns, writer.constant(np.uint8(LIMIT)))

    def visible(self, writer: Writer, attention_mask: ir.Value) -> ir.Value:
        """(B, L), as int32."""
        return writer.op("Cast", attention_mask, to=ir.DataType.INT32)

    def attend(self, writer: Writer, x: ir.Value, name: str, visible: ir.Value, heads: Heads) -> ir.Value:
        """(B, L, d) -> (B, L, d). Its two products are in float32: neither side is known beforehand."""
        q, k, v = writer.ops("Split", self._product(writer, x, name), outputs=3, axis=-1, num_outputs=3)
        bias = writer.constant(self._weights[f"{name}.bias"], f"{name}.bias")
        return writer.op("MultiHeadAttention", q, k, v, bias, visible, domain="com.microsoft", num_heads=heads.number)

    def _rows(self, writer: Writer) -> ir.Value:
        """The tied matrix: (V, d), 0..128."""
        return writer.constant((self._tied.values.T + np.int8(LIMIT)).view(np.uint8), TIED)

    def _product(self, writer: Writer, x: ir.Value, name: str, lowest: float | None = None) -> ir.Value:
        """`x @ weight.T`: (.., K) -> (.., N)."""
        smoothing, weight = self.rounded(name)
        if smoothing is not None:
            x = writer.op("Mul", x, writer.constant(smoothing, f"{name}.smoothing"))
        step = _one_sided(writer, x, lowest) if lowest else _two_sided(writer, x, axes=[-1])
        zero = writer.constant(np.uint8(LOW if lowest else MIDDLE))
        zeros = writer.op("Expand", zero, writer.op("Shape", step))
        rows = writer.op("QuantizeLinear", x, step, zeros, axis=-1, block_size=len(weight.values))
        product = writer.op(
            "MatMulIntegerToFloat",
            rows,
            writer.constant(weight.values, f"{name}.weight"),
            writer.constant(np.float32(1)),
            writer.constant(weight.scales, f"{name}.weight.scales"),
            zero,
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


def _two_sided(writer: Writer, x: ir.Value, *, axes: list[int]) -> ir.Value:
    """The step between two values, one over `axes`, which are kept as 1."""
    largest = writer.op("ReduceMax", writer.op("Abs", x), writer.constant(axes), keepdims=1)
    step = writer.op("Mul", largest, writer.constant(np.float32(1 / (MIDDLE - 1))))
    return writer.op("Max", step, writer.constant(LEAST))


def _one_sided(writer: Writer, x: ir.Value, lowest: float) -> ir.Value:
    """The step between two values, one a row, for values that never fall below `lowest`."""
    largest = writer.op("ReduceMax", x, writer.constant([-1]), keepdims=1)
    step = writer.op("Mul", largest, writer.constant(np.float32(1 / (255 - LOW))))
    return writer.op("Max", step, writer.constant(np.float32(-lowest / LOW)))
