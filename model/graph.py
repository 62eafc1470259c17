"""The ONNX graph of a fused encoder, written node by node from its weights.

Why not trace the network: this way each product with a weight is one call that every precision answers in its own way,
the tied matrix is one initializer, and `k` is an input. Before the LPU, whose work grows with its rows, the words of
each text are moved ahead of special tokens and padding, which are then cut off as far as the batch allows. Of its
(B, n, V) scores only those of a block of the vocabulary exist at a time, since more would not stay in the cache. An
encoder with an expansion vocabulary (`model.expansion`) has scores for its entries and for the words of the text, and
no others are computed.

There is no loop: a batch is as many kernels as a text, each of which a GPU has to be told.

`export` compares the result with PyTorch, so this second statement of the network cannot drift unseen.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from model.products import POSITIONS, TRANSFORM, Heads, Products, Weights, Words
from model.writer import Writer

if TYPE_CHECKING:
    from model.dupmae import FusedEncoder

EXPANSIONS = "expansions"
ORDINARY = "ordinary"

GELU_MINIMUM = -0.17


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
        indices, values = self.bags(hidden, input_ids, attention_mask, k)
        outputs = [
            _typed(cls, "cls", ir.DataType.FLOAT, ["B", self.encoder.project.out_features]),
            _typed(indices, "ot_indices", ir.DataType.INT64, ["B", "K"]),
            _typed(values, "ot_values", ir.DataType.FLOAT, ["B", "K"]),
        ]
        return writer.model([input_ids, attention_mask, k], outputs)

    def _trunk(self, input_ids: ir.Value, attention_mask: ir.Value) -> ir.Value:
        """BERT: (B, L), (B, L) -> (B, L, d)."""
        writer, names = self.writer, "bert.embeddings"
        places = self.weights[POSITIONS] + self.weights[f"{names}.token_type_embeddings.weight"][0]
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

    def bags(self, hidden: ir.Value, input_ids: ir.Value, attention_mask: ir.Value, k: ir.Value) -> Sequence[ir.Value]:
        """(B, L, d), (B, L), (B, L), () -> indices (B, k), values (B, k); k is S at most, if there is S.

        Of a text without a word every value is 0.
        """
        writer = self.writer
        special = self.encoder.special_ids.numpy()
        ordinary = self._among(input_ids, ORDINARY, ~_marked(special, self.encoder.vocabulary_size))
        ordinary = writer.op("And", ordinary, writer.op("Cast", attention_mask, to=ir.DataType.BOOL))
        seen = writer.op("Cast", ordinary, to=ir.DataType.FLOAT)
        counts = writer.op("ReduceSum", seen, writer.constant([1]), keepdims=1)  # (B, 1)
        places = _ahead(writer, seen, counts)  # (B, n)
        states = writer.op("GatherND", hidden, writer.op("Unsqueeze", places, writer.constant([2])), batch_dims=1)
        rows = self._norm(writer.op("Gelu", self._linear(states, f"{TRANSFORM}.dense")), f"{TRANSFORM}.LayerNorm")
        if self.encoder.expansions is None:
            (mu,) = self.products.best(writer, rows, None)
            largest, indices = self._most(self._scores(mu, None), k)
        else:
            own_ids = writer.op("GatherElements", input_ids, places, axis=1)
            words = Words(writer.constant(self.encoder.expansions.numpy(), EXPANSIONS), own_ids)
            best = self.products.best(writer, rows, words)
            common, own = (self._scores(mu, of) for mu, of in zip(best, words, strict=True))
            own = writer.op("Where", self._fresh(own_ids), own, writer.scalar(-np.inf))
            number = writer.constant(self.encoder.expansions.numel())
            most = writer.op("Min", k, number)
            largest, chosen = self._most(writer.op("Concat", common, own, axis=1), most)
            indices = _entries(writer, chosen, words, number)
        some = writer.op("Min", counts, writer.scalar(1))
        return indices, writer.op("Mul", self._activated(writer, largest), some)

    def _among(self, ids: ir.Value, name: str, marked: NDArray[np.bool_]) -> ir.Value:
        """Whether ids are marked in the vocabulary: (..), bool."""
        return self.writer.op("Gather", self.writer.constant(marked, name), ids)

    def _fresh(self, ids: ir.Value) -> ir.Value:
        """Words that are no expansion and stand nowhere before in their text: (B, n) -> (B, n) bool."""
        writer, encoder = self.writer, self.encoder
        assert encoder.expansions is not None
        not_own = np.concatenate([encoder.expansions.numpy(), encoder.special_ids.numpy()])
        beside = self._among(ids, f"{EXPANSIONS}.beside", ~_marked(not_own, encoder.vocabulary_size))
        column, row = (writer.op("Unsqueeze", ids, writer.constant([axis])) for axis in (2, 1))
        earlier = writer.op("Trilu", writer.op("Equal", column, row), writer.constant(-1), upper=0)  # (B, n, n)
        repeated = writer.op(
            "ReduceMax", writer.op("Cast", earlier, to=ir.DataType.FLOAT), writer.constant([2]), keepdims=0
        )
        return writer.op("And", beside, writer.op("Equal", repeated, writer.scalar(0)))

    def _most(self, scores: ir.Value, k: ir.Value) -> Sequence[ir.Value]:
        """The largest of each row, and their places: (B, m), () -> (B, k), (B, k)."""
        return self.writer.ops("TopK", scores, self.writer.op("Reshape", k, self.writer.constant([1])), outputs=2)

    def _scores(self, mu: ir.Value, words: ir.Value | None) -> ir.Value:
        """`TermWeights`, up to its activation, for which the k best need no others: that is monotone.

        The LPU's own bias is the same at each position, so it is added here, after the maximum.
        """
        writer, terms = self.writer, self.encoder.terms
        gain, bias = terms.gain.detach().numpy(), terms.bias.detach().numpy()
        shift = gain * self.weights["cls.predictions.bias"] + bias
        line = [writer.constant(gain, "terms.gain"), writer.constant(shift, "terms.shift")]
        if words:
            line = [writer.op("Gather", table, words) for table in line]
        return writer.op("Add", writer.op("Mul", mu, line[0]), line[1])

    def _activated(self, writer: Writer, scores: ir.Value) -> ir.Value:
        activation = self.encoder.terms.activation
        values = scores if activation == "raw" else writer.op("Relu", scores)
        return writer.op("Log", writer.op("Add", values, writer.scalar(1))) if activation == "log1p" else values

    def _linear(self, x: ir.Value, name: str) -> ir.Value:
        return self.products.linear(self.writer, x, name)

    def _norm(self, x: ir.Value, name: str) -> ir.Value:
        scale, bias = (
            self.writer.constant(self.weights[f"{name}.{kind}"], f"{name}.{kind}") for kind in ("weight", "bias")
        )
        return self.writer.op("LayerNormalization", x, scale, bias, epsilon=self.config.layer_norm_eps)


def _ahead(writer: Writer, seen: ir.Value, counts: ir.Value) -> ir.Value:
    """Where the tokens that are seen stand, and then the first of them again: (B, L), (B, 1) -> (B, n).

    n is the most that a text of the batch has, and 1 where none has any: there are kernels that refuse what is empty.
    What is there again changes no maximum.
    """
    longest = writer.op("Max", writer.op("ReduceMax", counts, writer.constant([0]), keepdims=0), writer.scalar(1))
    kept, places = writer.ops("TopK", seen, writer.op("Cast", longest, to=ir.DataType.INT64), outputs=2)
    first = writer.op("Slice", places, writer.constant([0]), writer.constant([1]), writer.constant([1]))
    return writer.op("Where", writer.op("Cast", kept, to=ir.DataType.BOOL), places, first)


def _entries(writer: Writer, places: ir.Value, words: Words, number: ir.Value) -> ir.Value:
    """The vocabulary entries at places among expansions, of which there are `number`, and then own words: (B, k)."""
    last = writer.op("Sub", number, writer.constant(1))
    common = writer.op("Gather", words.expansions, writer.op("Min", places, last))
    beyond = writer.op("Max", writer.op("Sub", places, number), writer.constant(0))
    own = writer.op("GatherElements", words.own, beyond, axis=1)
    return writer.op("Where", writer.op("Greater", places, last), own, common)


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


def _marked(entries: NDArray[np.int64], number: int) -> NDArray[np.bool_]:
    """(number,), true at the entries."""
    marked = np.zeros(number, bool)
    marked[entries] = True
    return marked


def _value(name: str, kind: ir.DataType, shape: Sequence[str | int]) -> ir.Value:
    return ir.Value(name=name, type=ir.TensorType(kind), shape=ir.Shape(shape))


def _typed(value: ir.Value, name: str, kind: ir.DataType, shape: Sequence[str | int]) -> ir.Value:
    value.name, value.type, value.shape = name, ir.TensorType(kind), ir.Shape(shape)
    return value
