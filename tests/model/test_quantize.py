"""The int8 products as ONNX Runtime computes them, against the same arithmetic in numpy and in float nodes."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from numpy.typing import NDArray

from model.products import POSITIONS, TIED, Heads, attention, penalty
from model.quantize import COLUMNS, POOLED, Int8Products, Quantized, compensated, quantize
from model.writer import Writer

FLOAT, INT = ir.DataType.FLOAT, ir.DataType.INT64
RANDOM = np.random.default_rng(5)


def compiled(writer: Writer, inputs: Sequence[ir.Value], outputs: Sequence[ir.Value]) -> Callable[..., list[Any]]:
    """What the graph gives for arrays in the order of its inputs."""
    for number, value in enumerate(outputs):
        value.name, value.type = f"output_{number}", ir.TensorType(FLOAT)
    model = ir.to_proto(writer.model(inputs, outputs)).SerializeToString()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    names = [value.name for value in inputs]
    return lambda *arrays: list(session.run(None, dict(zip(names, arrays, strict=True))))


def given(name: str, kind: ir.DataType, shape: list[str | int]) -> ir.Value:
    return ir.Value(name=name, type=ir.TensorType(kind), shape=ir.Shape(shape))


def normal(*shape: int) -> NDArray[np.float32]:
    return RANDOM.normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(
    ("texts", "count", "positions"),
    [(1, 1, 1), (1, 1, 8), (1, POOLED, POOLED), (1, POOLED + 1, POOLED + 1), (3, 70, 512), (1, POOLED**2 + 1, 2048)],
)
def test_the_maximum_is_that_of_the_whole_vocabulary_however_long_a_text_is(
    texts: int, count: int, positions: int
) -> None:
    rows, tied = normal(texts, count, 32), normal(2 * COLUMNS + 77, 32)
    rows *= np.arange(1, texts + 1, dtype=np.float32)[:, None, None]  # each text has a step of its own
    tied[COLUMNS] = 1
    rows[0, 0] = np.abs(rows[0]).max()  # with it as much as 16 bits hold of a pair
    writer, x = Writer(), given("rows", FLOAT, ["B", "n", 32])
    best = Int8Products({TIED: tied, POSITIONS: normal(positions, 32)}, {}).best(writer, x, None)
    (found,) = compiled(writer, [x], best)(rows)
    values, scales = quantize(tied)
    for text, maxima in zip(rows, found, strict=True):
        step = np.abs(text).max() * np.float32(1 / 127)
        scores = np.rint(text / step).astype(np.int64) @ values.astype(np.int64)
        np.testing.assert_array_equal(maxima, scores.max(axis=0).astype(np.float32) * (scales * step))


def test_the_embedding_is_the_tied_matrix_as_it_was_rounded() -> None:
    tied, ids = normal(COLUMNS + 3, 8), np.array([[0, COLUMNS + 2, 7]])
    writer, x = Writer(), given("ids", INT, ["B", "L"])
    (found,) = compiled(writer, [x], [Int8Products({TIED: tied}, {}).embed(writer, x)])(ids)
    values, scales = quantize(tied)
    np.testing.assert_array_equal(found, values.T[ids] * scales[ids][..., None])


def test_attention_in_one_node_is_attention_node_by_node_whatever_the_padding_holds() -> None:
    d, heads = 24, Heads(3, 8)
    weights = {"self.weight": normal(3 * d, d), "self.bias": normal(3 * d), TIED: normal(9, d)}
    x, mask = normal(2, 6, d), np.array([[1] * 6, [1] * 4 + [0] * 2])
    writer = Writer()
    hidden, attended = given("x", FLOAT, ["B", "L", d]), given("mask", INT, ["B", "L"])
    products = Int8Products(weights, {})
    one = products.attend(writer, hidden, "self", products.visible(writer, attended), heads)
    many = attention(
        writer,
        products.linear(writer, hidden, "self"),
        added=penalty(writer, attended),
        heads=heads,
        product=lambda left, right: writer.op("MatMul", left, right),
    )
    graph = compiled(writer, [hidden, attended], [one, many])
    fused, nodes = graph(x, mask)
    np.testing.assert_allclose(fused[mask == 1], nodes[mask == 1], rtol=0, atol=1e-6)
    x[1, 4:] = 100.0
    np.testing.assert_array_equal(graph(x, mask)[0][mask == 1], fused[mask == 1])


def test_a_row_is_rounded_by_its_own_step_whatever_its_neighbours_are() -> None:
    weight, x = normal(16, 32), normal(1, 5, 32)
    writer, rows = Writer(), given("x", FLOAT, ["B", "L", 32])
    y = Int8Products({"layer.weight": weight, TIED: weight}, {}).linear(writer, rows, "layer")
    graph = compiled(writer, [rows], [y])
    (alone,) = graph(x)
    assert np.abs(alone - x @ weight.T).max() < 0.05 * np.abs(alone).max()
    (beside,) = graph(np.concatenate([x, 1000 * x]))
    np.testing.assert_array_equal(beside[:1], alone)


def test_compensated_rounding_keeps_the_product_and_stays_within_its_bytes() -> None:
    """Inputs that go together, as a network's do: what one column loses another one can make up for."""
    weight, mixed = normal(24, 32), normal(6, 32)
    x = normal(400, 6) @ mixed + 0.1 * normal(400, 32)
    gram = (x.T @ x).astype(np.float64)
    ours, plain = compensated(weight, gram), quantize(weight)
    assert np.array_equal(ours.scales, plain.scales)
    assert ours.values.dtype == np.int8
    assert np.abs(ours.values).max() <= 64

    def error(rounded: Quantized, rows: NDArray[np.float32]) -> float:
        return float(np.square(rows @ (rounded.values * rounded.scales) - rows @ weight.T).sum())

    unseen = normal(400, 6) @ mixed + 0.1 * normal(400, 32)
    assert error(ours, x) < 0.5 * error(plain, x)
    assert error(ours, unseen) < 0.5 * error(plain, unseen)


def test_where_inputs_have_nothing_in_common_rounding_is_to_nearest() -> None:
    weight = normal(5, 16)
    ours = compensated(weight, np.diag(np.arange(1.0, 17.0)))
    assert np.array_equal(ours.values, quantize(weight).values)
