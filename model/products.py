"""How a graph multiplies: the products that each precision makes in its own way, and those of float32.

`half` has float16's, `quantize` int8's. What is the same in several is a function here.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple, Protocol

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from model.writer import Writer

TIED = "bert.embeddings.word_embeddings.weight"
TRANSFORM = "cls.predictions.transform"
POSITIONS = "bert.embeddings.position_embeddings.weight"

BLOCK = 1024
"""Entries of the vocabulary whose scores exist at a time, where they are floats."""

Weights = Mapping[str, NDArray[np.float32]]


class Heads(NamedTuple):
    """Of attention: how many, and the width of each."""

    number: int
    width: int


class Words(NamedTuple):
    """The vocabulary entries that texts may be given: `expansions` (S,), the same for all, and `own` (B, n), the words
    of each text, as often as they stand in it. int64."""

    expansions: ir.Value
    own: ir.Value


class Products(Protocol):
    """How a precision multiplies by weights."""

    def embed(self, writer: Writer, ids: ir.Value) -> ir.Value:
        """Rows of the tied matrix: (B, L) -> (B, L, d)."""

    def linear(self, writer: Writer, x: ir.Value, name: str, *, lowest: float | None = None) -> ir.Value:
        """`x @ weight.T + bias` of the layer of this name: (.., K) -> (.., N); `lowest` is a known bound of `x`."""

    def best(self, writer: Writer, rows: ir.Value, words: Words | None) -> Sequence[ir.Value]:
        """The largest product of any row of a text with each row of these words of the tied matrix: (B, n, d) -> (B, S)
        and (B, n) of the text's own; (B, V) alone if every word may be given."""

    def visible(self, writer: Writer, attention_mask: ir.Value) -> ir.Value:
        """(B, L), 1 for tokens and 0 for padding, in the form that `attend` wants."""

    def attend(self, writer: Writer, x: ir.Value, name: str, visible: ir.Value, heads: Heads) -> ir.Value:
        """Attention with the joined query, key and value layer of this name, unprojected: (B, L, d) -> (B, L, d)."""


class FloatProducts:
    """float32 throughout."""

    def __init__(self, weights: Weights) -> None:
        self._weights = weights

    def embed(self, writer: Writer, ids: ir.Value) -> ir.Value:
        """(B, L) -> (B, L, d)."""
        return writer.op("Gather", self._tied(writer), ids)

    def linear(self, writer: Writer, x: ir.Value, name: str, *, lowest: float | None = None) -> ir.Value:
        """(.., K) -> (.., N)."""
        weight = writer.constant(self._weights[f"{name}.weight"].T.copy(), f"{name}.weight")  # (K, N)
        y = writer.op("MatMul", x, weight)
        bias = self._weights.get(f"{name}.bias")
        return y if bias is None else writer.op("Add", y, writer.constant(bias, f"{name}.bias"))

    def best(self, writer: Writer, rows: ir.Value, words: Words | None) -> Sequence[ir.Value]:
        """(B, n, d) -> (B, S) and (B, n), or (B, V)."""
        return best_of(writer, rows, self._tied(writer), words, largest_product)

    def visible(self, writer: Writer, attention_mask: ir.Value) -> ir.Value:
        """(B, L) -> (B, 1, 1, L), 0 or -1e9."""
        return penalty(writer, attention_mask)

    def attend(self, writer: Writer, x: ir.Value, name: str, visible: ir.Value, heads: Heads) -> ir.Value:
        """(B, L, d) -> (B, L, d)."""
        joined = self.linear(writer, x, name)
        return attention(writer, joined, added=visible, heads=heads, product=partial(writer.op, "MatMul"))

    def _tied(self, writer: Writer) -> ir.Value:
        return writer.constant(self._weights[TIED], TIED)


def best_of(
    writer: Writer,
    rows: ir.Value,
    tied: ir.Value,
    words: Words | None,
    product: Callable[[Writer, ir.Value, ir.Value, int], ir.Value],
) -> Sequence[ir.Value]:
    """`Products.best` in floats: (B, n, d), (V, d) -> (B, S) and (B, n), or (B, V).

    `product` multiplies two and gives the largest along an axis of what comes out.
    """
    columns = (writer.op("Transpose", block, perm=[1, 0]) for block in blocks(writer, tied, words, BLOCK))
    best = [writer.op("Concat", *(product(writer, rows, block, 1) for block in columns), axis=1)]
    if words:
        own = writer.op("Gather", tied, words.own)
        best.append(product(writer, own, writer.op("Transpose", rows, perm=[0, 2, 1]), 2))  # of (B, n, n)
    return best


def largest_product(writer: Writer, left: ir.Value, right: ir.Value, axis: int) -> ir.Value:
    """Of a matrix product the largest along an axis."""
    return writer.op("ReduceMax", writer.op("MatMul", left, right), writer.constant([axis]), keepdims=0)


def blocks(writer: Writer, tied: ir.Value, words: Words | None, most: int) -> Sequence[ir.Value]:
    """The rows of all words, or of the expansions, `most` at a time: cut once, when the graph is loaded."""
    rows = writer.op("Gather", tied, words.expansions) if words else tied
    number = len(np.asarray((words.expansions if words else tied).const_value))
    sizes = [min(most, number - at) for at in range(0, number, most)]
    return writer.ops("Split", rows, writer.constant(sizes), outputs=len(sizes), axis=0)


def penalty(writer: Writer, attention_mask: ir.Value) -> ir.Value:
    """What is added to attention's scores, 0 for tokens and -1e9 for padding: (B, L) -> (B, 1, 1, L)."""
    seen = writer.op("Cast", attention_mask, to=ir.DataType.FLOAT)
    added = writer.op("Mul", writer.op("Sub", seen, writer.scalar(1)), writer.scalar(1e9))
    return writer.op("Unsqueeze", added, writer.constant([1, 2]))


def attention(
    writer: Writer,
    joined: ir.Value,
    *,
    added: ir.Value,
    heads: Heads,
    product: Callable[[ir.Value, ir.Value], ir.Value],
) -> ir.Value:
    """Multi-head self-attention in float32, but for its two products: (B, L, 3 d), (B, 1, 1, L) -> (B, L, d)."""
    split = writer.op("Reshape", joined, writer.constant([0, 0, 3, heads.number, heads.width]))
    q, k, v = (
        writer.op("Gather", writer.op("Transpose", split, perm=[2, 0, 3, 1, 4]), writer.constant(part))
        for part in range(3)
    )  # (B, H, L, d / H)
    q = writer.op("Mul", q, writer.scalar(heads.width**-0.5))
    scores = product(q, writer.op("Transpose", k, perm=[0, 1, 3, 2]))  # (B, H, L, L)
    seen = writer.op("Softmax", writer.op("Add", scores, added), axis=-1)
    mixed = writer.op("Transpose", product(seen, v), perm=[0, 2, 1, 3])
    return writer.op("Reshape", mixed, writer.constant([0, 0, heads.number * heads.width]))
