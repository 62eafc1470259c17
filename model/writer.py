"""An ONNX graph in the making: nodes are appended in order, and what is constant is there once."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.tape import Tape

OPSET, IR_VERSION = 21, 10


class Writer:
    """A graph in the making: nodes in order, and each constant once."""

    def __init__(self) -> None:
        self._tape = Tape()
        self._constants: dict[str, ir.Value] = {}

    def op(self, kind: str, *inputs: ir.Value | None, domain: str = "", **attributes: Any) -> ir.Value:
        """Append a node of one output."""
        return self._tape.op(kind, inputs, attributes, domain=domain)

    def ops(self, kind: str, *inputs: ir.Value | None, outputs: int, **attributes: Any) -> Sequence[ir.Value]:
        """Append a node of several outputs."""
        return self._tape.op_multi_out(kind, inputs, attributes, num_outputs=outputs)

    def constant(self, value: Any, name: str | None = None) -> ir.Value:
        """An array as an initializer. Only small ones may go unnamed: they are known by their value."""
        array = np.asarray(value)
        name = name or f"{array.dtype}_{array.tolist()}"
        if name not in self._constants:
            self._constants[name] = ir.Value(
                name=name,
                type=ir.TensorType(ir.DataType.from_numpy(array.dtype)),
                shape=ir.Shape(array.shape),
                const_value=ir.tensor(array, name=name),
            )
        return self._constants[name]

    def scalar(self, value: float) -> ir.Value:
        """A float32 without dimensions."""
        return self.constant(np.float32(value))

    def model(self, inputs: Sequence[ir.Value], outputs: Sequence[ir.Value]) -> ir.Model:
        """The finished model."""
        graph = ir.Graph(
            inputs,
            outputs,
            nodes=self._tape.nodes,
            initializers=list(self._constants.values()),
            opset_imports={"": OPSET, "com.microsoft": 1},
            name="dupmae",
        )
        return ir.Model(graph, ir_version=IR_VERSION, producer_name="dupmae-search")
