"""The ONNX graph of a fused encoder, written node by node from its weights.

Why not trace the network: this way each product with a weight is one call that every precision answers in its own way,
the tied matrix is one initializer, `k` is an input, and the bag of words walks over texts in a Loop. The Loop drops
padding and special tokens before the LPU, and of its (L, V) scores only one text's exist at a time (15 MB at 128
tokens, which stays in cache; the whole batch's would be 250 MB and slower). An encoder with an expansion vocabulary
(`model.expansion`) has scores for its entries and for the words of the text, and no others are computed.

`export` compares the result with PyTorch, so this second statement of the network cannot drift unseen.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from model.writer import Writer

if TYPE_CHECKING:
    from model.dupmae import FusedEncoder

TIED = "bert.embeddings.word_embeddings.weight"
TRANSFORM = "cls.predictions.transform"
EXPANSIONS = "expansions"

GELU_MINIMUM = -0.17

Weights = Mapping[str, NDArray[np.float32]]


class Heads(NamedTuple):
    """Of attention: how many, and the width of each."""

    number: int
    width: int


class Words(NamedTuple):
    """The vocabulary entries that one text may be given: `expansions` (S,), always the same, and `others` (O,), which
    are the text's own beside those, each once, and at the end a special token, for which no score counts: there are
    kernels of CUDA that refuse what is empty. int64."""

    expansions: ir.Value
    others: ir.Value

    def of(self, writer: Writer, table: ir.Value) -> ir.Value:
        """Their rows of a table: (V, ..) -> (S + O, ..). The first part is made when the graph is loaded."""
        return writer.op("Concat", *(writer.op("Gather", table, some) for some in self), axis=0)


class Products(Protocol):
    """How a precision multiplies by weights."""

    def embed(self, writer: Writer, ids: ir.Value) -> ir.Value:
        """Rows of the tied matrix: (B, L) -> (B, L, d)."""

    def linear(self, writer: Writer, x: ir.Value, name: str, *, lowest: float | None = None) -> ir.Value:
        """`x @ weight.T + bias` of the layer of this name: (.., K) -> (.., N); `lowest` is a known bound of `x`."""

    def best(self, writer: Writer, rows: ir.Value, words: Words | None) -> ir.Value:
        """The largest product of any row with each row of these words of the tied matrix: (n, d) -> (S + O,), (V,)."""

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

    def best(self, writer: Writer, rows: ir.Value, words: Words | None) -> ir.Value:
        """(n, d) -> (S + O,), (V,)."""
        return best_of(writer, rows, self._tied(writer), words)

    def visible(self, writer: Writer, attention_mask: ir.Value) -> ir.Value:
        """(B, L) -> (B, 1, 1, L), 0 or -1e9."""
        return penalty(writer, attention_mask)

    def attend(self, writer: Writer, x: ir.Value, name: str, visible: ir.Value, heads: Heads) -> ir.Value:
        """(B, L, d) -> (B, L, d)."""
        joined = self.linear(writer, x, name)
        return attention(writer, joined, added=visible, heads=heads, product=partial(writer.op, "MatMul"))

    def _tied(self, writer: Writer) -> ir.Value:
        return writer.constant(self._weights[TIED], TIED)


class EncoderGraph:
    """Writes the parts of one encoder's graph."""

    def __init__(self, encoder: "FusedEncoder", products: Callable[[Weights], Products]) -> None:
        self.encoder = encoder
        self.config = encoder.mlm.config
        self.weights = named_weights(encoder)
        self.products = products(self.weights)
        self.writer = Writer()

    def build(self) -> ir.Model:
        """`input_ids` (B, L), `attention_mask` (B, L), `k` () -> `cls` (B, d'), `ot_indices` and `ot_values` (B, k)."""
        writer = self.writer
        input_ids = _value("input_ids", ir.DataType.INT64, ["B", "L"])
        attention_mask = _value("attention_mask", ir.DataType.INT64, ["B", "L"])
        k = _value("k", ir.DataType.INT64, [])
        hidden = self._trunk(input_ids, attention_mask)
        cls = self.products.linear(writer, writer.op("Gather", hidden, writer.constant(0), axis=1), "project")
        features = self._norm(writer.op("Gelu", self._linear(hidden, f"{TRANSFORM}.dense")), f"{TRANSFORM}.LayerNorm")
        indices, values = self.bags(features, input_ids, self._ordinary(input_ids, attention_mask), k)
        outputs = [
            _typed(cls, "cls", ir.DataType.FLOAT, ["B", self.encoder.project.out_features]),
            _typed(indices, "ot_indices", ir.DataType.INT64, ["B", "K"]),
            _typed(values, "ot_values", ir.DataType.FLOAT, ["B", "K"]),
        ]
        return writer.model([input_ids, attention_mask, k], outputs)

    def _trunk(self, input_ids: ir.Value, attention_mask: ir.Value) -> ir.Value:
        """BERT: (B, L), (B, L) -> (B, L, d)."""
        writer, names = self.writer, "bert.embeddings"
        places = (
            self.weights[f"{names}.position_embeddings.weight"]
            + self.weights[f"{names}.token_type_embeddings.weight"][0]
        )
        length = writer.op("Shape", input_ids, start=1)
        used = writer.op("Slice", writer.constant(places, "places"), writer.constant([0]), length)  # (L, d)
        x = self._norm(writer.op("Add", self.products.embed(writer, input_ids), used), f"{names}.LayerNorm")
        visible = self.products.visible(writer, attention_mask)
        number = self.config.num_attention_heads
        heads = Heads(number, self.config.hidden_size // number)
        for place in range(self.config.num_hidden_layers):
            layer = f"bert.encoder.layer.{place}"
            mixed = self.products.attend(writer, x, f"{layer}.attention.self", visible, heads)
            mixed = self._linear(mixed, f"{layer}.attention.output.dense")
            x = self._norm(writer.op("Add", mixed, x), f"{layer}.attention.output.LayerNorm")
            inner = writer.op("Gelu", self._linear(x, f"{layer}.intermediate.dense"))
            outer = self.products.linear(writer, inner, f"{layer}.output.dense", lowest=GELU_MINIMUM)
            x = self._norm(writer.op("Add", outer, x), f"{layer}.output.LayerNorm")
        return x

    def _ordinary(self, input_ids: ir.Value, attention_mask: ir.Value) -> ir.Value:
        """(B, L) bool: attended and not a special token."""
        keep = self.writer.op("Cast", attention_mask, to=ir.DataType.BOOL)
        for special in self.encoder.special_ids.tolist():
            is_special = self.writer.op("Equal", input_ids, self.writer.constant(special))
            keep = self.writer.op("And", keep, self.writer.op("Not", is_special))
        return keep

    def bags(self, features: ir.Value, input_ids: ir.Value, keep: ir.Value, k: ir.Value) -> Sequence[ir.Value]:
        """A Loop over texts: (B, L, d), (B, L), (B, L) -> indices (B, k), values (B, k); k at most S, if there is S."""
        text, go_on = _value("text", ir.DataType.INT64, []), _value("go_on", ir.DataType.BOOL, [])
        body = self.writer.body()
        states, kept = body.op("Gather", features, text), body.op("Gather", keep, text)  # (L, d), (L,)
        rows = body.op("Compress", states, kept, axis=0)  # (n, d)
        words = self._words(body, body.op("Gather", input_ids, text), kept)
        wordless = body.op("Equal", body.op("Shape", rows, end=1), body.constant([0]))  # (1,)
        scores = self._scores(body, self.products.best(body, rows, words), words)  # (S + O,), (V,)
        most = body.op("Reshape", k, body.constant([1]))
        if words:
            scores = body.op("Slice", scores, body.constant([0]), body.constant([-1]))
            most = body.op("Min", most, body.op("Shape", words.expansions))
        largest, places = body.ops("TopK", scores, most, outputs=2)
        indices = body.op("Gather", body.op("Concat", *words, axis=0), places) if words else places
        values = body.op("Where", wordless, _scalar(body, 0), self._activated(body, largest))  # no maximum over nothing
        loop = body.subgraph([text, go_on], [body.op("Identity", go_on), indices, values], "each_text")
        count = self.writer.op("Gather", self.writer.op("Shape", keep), self.writer.constant(0))
        return self.writer.ops("Loop", count, None, outputs=2, body=loop)

    def _words(self, writer: Writer, input_ids: ir.Value, keep: ir.Value) -> Words | None:
        """(L,), (L,) -> what this text may be given; None if every text may be given any word."""
        expansions = self.encoder.expansions
        if expansions is None:
            return None
        beside = np.ones(self.encoder.vocabulary_size, bool)
        beside[expansions] = False
        own = writer.op("Compress", input_ids, keep)
        own = writer.op("Compress", own, writer.op("Gather", writer.constant(beside, f"{EXPANSIONS}.beside"), own))
        none = writer.constant(self.encoder.special_ids[:1].numpy())  # no text's own
        others = _once(writer, writer.op("Concat", own, none, axis=0))
        return Words(writer.constant(expansions.numpy(), EXPANSIONS), others)

    def _scores(self, writer: Writer, mu: ir.Value, words: Words | None) -> ir.Value:
        """`TermWeights`, up to its activation, for which the k best need no others: that is monotone.

        The LPU's own bias is the same at each position, so it is added here, after the maximum.
        """
        terms = self.encoder.terms
        gain, bias = terms.gain.detach().numpy(), terms.bias.detach().numpy()
        shift = gain * self.weights["cls.predictions.bias"] + bias
        line = [writer.constant(gain, "terms.gain"), writer.constant(shift, "terms.shift")]
        if words:
            line = [words.of(writer, table) for table in line]
        return writer.op("Add", writer.op("Mul", mu, line[0]), line[1])

    def _activated(self, writer: Writer, scores: ir.Value) -> ir.Value:
        activation = self.encoder.terms.activation
        values = scores if activation == "raw" else writer.op("Relu", scores)
        return writer.op("Log", writer.op("Add", values, _scalar(writer, 1))) if activation == "log1p" else values

    def _linear(self, x: ir.Value, name: str) -> ir.Value:
        return self.products.linear(self.writer, x, name)

    def _norm(self, x: ir.Value, name: str) -> ir.Value:
        scale, bias = (
            self.writer.constant(self.weights[f"{name}.{kind}"], f"{name}.{kind}") for kind in ("weight", "bias")
        )
        return self.writer.op("LayerNormalization", x, scale, bias, epsilon=self.config.layer_norm_eps)


def _once(writer: Writer, ids: ir.Value) -> ir.Value:
    """(n,) without those that stand further ahead already: `Unique`, which CUDA has not."""
    column, row = (writer.op("Unsqueeze", ids, writer.constant([axis])) for axis in (1, 0))
    earlier = writer.op("Trilu", writer.op("Equal", column, row), writer.constant(-1), upper=0)  # (n, n)
    repeated = writer.op(
        "ReduceMax", writer.op("Cast", earlier, to=ir.DataType.INT32), writer.constant([1]), keepdims=0
    )
    return writer.op("Compress", ids, writer.op("Equal", repeated, writer.constant(np.int32(0))))


def best_of(writer: Writer, rows: ir.Value, tied: ir.Value, words: Words | None) -> ir.Value:
    """`Products.best` in floats: (n, d), (V, d) -> (S + O,), (V,)."""
    if words is None:
        return writer.op("ReduceMax", writer.op("Gemm", rows, tied, transB=1), writer.constant([0]), keepdims=0)
    parts = (best_of(writer, rows, writer.op("Gather", tied, some), None) for some in words)
    return writer.op("Concat", *parts, axis=0)


def penalty(writer: Writer, attention_mask: ir.Value) -> ir.Value:
    """What is added to attention's scores, 0 for tokens and -1e9 for padding: (B, L) -> (B, 1, 1, L)."""
    seen = writer.op("Cast", attention_mask, to=ir.DataType.FLOAT)
    added = writer.op("Mul", writer.op("Sub", seen, _scalar(writer, 1)), _scalar(writer, 1e9))
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
    q = writer.op("Mul", q, _scalar(writer, heads.width**-0.5))
    scores = product(q, writer.op("Transpose", k, perm=[0, 1, 3, 2]))  # (B, H, L, L)
    seen = writer.op("Softmax", writer.op("Add", scores, added), axis=-1)
    mixed = writer.op("Transpose", product(seen, v), perm=[0, 2, 1, 3])
    return writer.op("Reshape", mixed, writer.constant([0, 0, heads.number * heads.width]))


def named_weights(encoder: "FusedEncoder") -> dict[str, NDArray[np.float32]]:
    """The weights by their names in `transformers`; `project.weight` too, and query, key and value as one matrix."""
    weights = {name: tensor.numpy() for name, tensor in encoder.mlm.state_dict().items()}
    weights["project.weight"] = encoder.project.weight.detach().numpy()
    for layer in range(encoder.mlm.config.num_hidden_layers):
        attention = f"bert.encoder.layer.{layer}.attention.self"
        for kind in ("weight", "bias"):
            parts = [weights[f"{attention}.{part}.{kind}"] for part in ("query", "key", "value")]
            weights[f"{attention}.{kind}"] = np.concatenate(parts)
    return weights


def _scalar(writer: Writer, value: float) -> ir.Value:
    return writer.constant(np.float32(value))


def _value(name: str, kind: ir.DataType, shape: Sequence[str | int]) -> ir.Value:
    return ir.Value(name=name, type=ir.TensorType(kind), shape=ir.Shape(shape))


def _typed(value: ir.Value, name: str, kind: ir.DataType, shape: Sequence[str | int]) -> ir.Value:
    value.name, value.type, value.shape = name, ir.TensorType(kind), ir.Shape(shape)
    return value
