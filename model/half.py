"""float16 products for the graph: weights, and what is multiplied, in float16; all that lies between in float32.

For GPUs, which multiply float16 several times faster and add up in float32 as they do it. Residual sums, layer norms,
GELU, softmax with its mask, biases and term weights stay float32: a mask of -1e9 or a variance may lie outside float16,
which ends at 65,504. What is left to overflow is an input or a result of a product, and `widest` says how far a network
stays from that. Cost: two casts a product.

On a CPU, ONNX Runtime multiplies the rounded weights in float32 and leaves the casts out: nearly as fast as float32,
and nearer to it than a GPU is. With the bundled model's weights, on 63 texts, [CLS] vectors err by .0007 there
(relative, against float32), and by .0013 where each input and result of a product is rounded too; .9996 and .9987 of
the OT entries are the same. No GPU has run it yet.
"""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor, nn

from model.dupmae import FusedEncoder
from model.products import TIED, Heads, Weights, Words, attention, best_of, largest_product, penalty
from model.writer import Writer

LIMIT = float(np.finfo(np.float16).max) / 4
"""What products may reach on the texts of an export; the rest of float16's range is for other texts."""


class Reached(NamedTuple):
    """The largest size of a number that goes into a layer or comes out of it."""

    size: float
    layer: str


@torch.no_grad()
def widest(encoder: FusedEncoder, texts: Iterable[Sequence[int]]) -> Reached:
    """The layer that reaches farthest, in its weights or with texts that are given as input ids."""
    found = [Reached(0.0, "none")]

    def note(name: str, _: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        found.append(Reached(max(float(tensor.abs().max()) for tensor in (inputs[0], output)), name))

    hooks = [
        layer.register_forward_hook(partial(note, name))
        for name, layer in encoder.named_modules()
        if isinstance(layer, nn.Linear)
    ]
    for ids in texts:
        input_ids = torch.tensor([ids])
        encoder(input_ids, torch.ones_like(input_ids), 1)
    for hook in hooks:
        hook.remove()
    return max(*found, *(Reached(float(weight.abs().max()), name) for name, weight in encoder.named_parameters()))


class HalfProducts:
    """`products.Products` in float16, between float32 and float32."""

    def __init__(self, weights: Weights) -> None:
        self._weights = weights

    def embed(self, writer: Writer, ids: ir.Value) -> ir.Value:
        """(B, L) -> (B, L, d)."""
        return _widen(writer, writer.op("Gather", self._tied(writer), ids))

    def linear(self, writer: Writer, x: ir.Value, name: str, *, lowest: float | None = None) -> ir.Value:
        """(.., K) -> (.., N)."""
        weight = self._weights[f"{name}.weight"].T.astype(np.float16)  # (K, N)
        product = writer.op("MatMul", _narrow(writer, x), writer.constant(weight, f"{name}.weight"))
        y, bias = _widen(writer, product), self._weights.get(f"{name}.bias")
        return y if bias is None else writer.op("Add", y, writer.constant(bias, f"{name}.bias"))

    def visible(self, writer: Writer, attention_mask: ir.Value) -> ir.Value:
        """(B, L) -> (B, 1, 1, L), 0 or -1e9."""
        return penalty(writer, attention_mask)

    def attend(self, writer: Writer, x: ir.Value, name: str, visible: ir.Value, heads: Heads) -> ir.Value:
        """(B, L, d) -> (B, L, d)."""
        joined = self.linear(writer, x, name)
        return attention(writer, joined, added=visible, heads=heads, product=partial(_product, writer))

    def best(self, writer: Writer, rows: ir.Value, words: Words | None) -> Sequence[ir.Value]:
        """(B, n, d) -> (B, S) and (B, n), or (B, V)."""
        return best_of(writer, rows, self._tied(writer), words, _largest_product)

    def _tied(self, writer: Writer) -> ir.Value:
        return writer.constant(self._weights[TIED].astype(np.float16), TIED)


def _product(writer: Writer, left: ir.Value, right: ir.Value) -> ir.Value:
    return _widen(writer, writer.op("MatMul", _narrow(writer, left), _narrow(writer, right)))


def _largest_product(writer: Writer, left: ir.Value, right: ir.Value, axis: int) -> ir.Value:
    return _widen(writer, largest_product(writer, _narrow(writer, left), _narrow(writer, right), axis))


def _narrow(writer: Writer, x: ir.Value) -> ir.Value:
    return writer.op("Cast", x, to=ir.DataType.FLOAT16)


def _widen(writer: Writer, x: ir.Value) -> ir.Value:
    return writer.op("Cast", x, to=ir.DataType.FLOAT)
