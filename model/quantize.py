"""int8 products for the graph: weights with one scale per output, activations with one scale per row (or text).

- A scale over the whole batch, which is what dynamic quantization does, would let a text's neighbours change its
  vector. A scale per row costs a few passes over the activations and keeps a text's vector its own; it needs no
  calibration and is nearer to float32 than a fixed scale (relative error of the hidden states .085 against .13 to .15).
- Weights use 7 of 8 bits. x86 without VNNI multiplies unsigned by signed bytes in pairs and saturates at 16 bits:
  2 * 255 * 64 = 32,640 stays below, so every kernel gives the same integers.
- The tied matrix lies in the file once, as (d, V) for the product; the embedding gathers its columns.
"""

from typing import NamedTuple

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from model.graph import TIED, Weights, Writer

LIMIT = 64
"""Weights lie within -64..64."""

MIDDLE = 128
"""Zero of the unsigned activations, which lie within 1..255."""

LEAST = np.float32(1e-12)
"""Keeps an all-zero row from dividing by zero."""


class Quantized(NamedTuple):
    """A weight matrix (N, K) as `values` int8 (K, N), times `scales` float32 (N,)."""

    values: NDArray[np.int8]
    scales: NDArray[np.float32]


def quantize(weight: NDArray[np.float32]) -> Quantized:
    """Round a matrix (N, K) to nearest, with one symmetric scale per row.

    >>> quantize(np.float32([[0.5, -1.0], [0.0, 4.0]])).values.T.tolist()
    [[32, -64], [0, 64]]
    """
    scales = np.maximum(np.abs(weight).max(axis=1), LEAST) / np.float32(LIMIT)
    return Quantized(np.rint(weight / scales[:, None]).T.astype(np.int8), scales)


class Int8Products:
    """`graph.Products` in int8."""

    def __init__(self, weights: Weights) -> None:
        self._weights = weights
        self._tied = quantize(weights[TIED])

    def embed(self, writer: Writer, ids: ir.Value) -> ir.Value:
        """(B, L) -> (B, L, d)."""
        columns = writer.op("Gather", self._tied_values(writer), ids, axis=1)  # (d, B, L)
        rows = writer.op("Cast", writer.op("Transpose", columns, perm=[1, 2, 0]), to=ir.DataType.FLOAT)
        scales = writer.op("Gather", writer.constant(self._tied.scales[:, None], "tied.scales.column"), ids)
        return writer.op("Mul", rows, scales)

    def linear(self, writer: Writer, x: ir.Value, name: str) -> ir.Value:
        """(.., K) -> (.., N)."""
        weight = quantize(self._weights[f"{name}.weight"])
        rows, step = _quantize_activations(writer, x, axes=[-1])
        product = writer.op(
            "MatMulIntegerToFloat",
            rows,
            writer.constant(weight.values, f"{name}.weight"),
            writer.constant(np.float32(1)),
            writer.constant(weight.scales, f"{name}.weight.scales"),
            writer.constant(np.uint8(MIDDLE)),
            domain="com.microsoft",
        )
        y = writer.op("Mul", product, step)
        bias = self._weights.get(f"{name}.bias")
        return y if bias is None else writer.op("Add", y, writer.constant(bias, f"{name}.bias"))

    def best(self, writer: Writer, rows: ir.Value) -> ir.Value:
        """(n, d) -> (V,). One step for all rows of the text, so that the maximum is taken over integers."""
        values, step = _quantize_activations(writer, rows, axes=[0, 1])
        scores = writer.op("MatMulInteger", values, self._tied_values(writer), writer.constant(np.uint8(MIDDLE)))
        best = writer.op("ReduceMax", scores, writer.constant([0]), keepdims=0)  # (V,) int32
        scales = writer.op("Mul", writer.constant(self._tied.scales, "tied.scales"), writer.op("Squeeze", step))
        return writer.op("Mul", writer.op("Cast", best, to=ir.DataType.FLOAT), scales)

    def _tied_values(self, writer: Writer) -> ir.Value:
        return writer.constant(self._tied.values, TIED)


def _quantize_activations(writer: Writer, x: ir.Value, *, axes: list[int]) -> tuple[ir.Value, ir.Value]:
    """uint8 around `MIDDLE`, and the float step between two values; one step over `axes`, which are kept as 1."""
    largest = writer.op("ReduceMax", writer.op("Abs", x), writer.constant(axes), keepdims=1)
    floor = writer.op("Max", largest, writer.constant(LEAST))
    step = writer.op("Mul", floor, writer.constant(np.float32(1 / (MIDDLE - 1))))
    units = writer.op("Div", x, step)
    return writer.op("QuantizeLinear", units, writer.constant(np.float32(1)), writer.constant(np.uint8(MIDDLE))), step
