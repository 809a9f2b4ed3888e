"""Build an ONNX graph node by node. Needs the package onnx."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

OPSET = 17  # LayerNormalization; onnxruntime reads it from 1.13 on
IR_VERSION = 8  # that of opset 17; newer ones are refused by older runtimes

Shape = Sequence[int | str]


class Graph:
    """Nodes in the order in which they run. A value is the name of a tensor.

    The names depend on the order of the calls alone, so that equal networks give equal files.
    """

    def __init__(self) -> None:
        self.onnx: Any = importlib.import_module("onnx")  # an extra
        self.nodes: list[Any] = []
        self.constants: dict[str, np.ndarray] = {}
        self.inputs: list[Any] = []
        self.outputs: list[Any] = []

    def input(self, name: str, shape: Shape) -> str:
        """An input of int64."""
        value = self.onnx.helper.make_tensor_value_info(name, self.onnx.TensorProto.INT64, shape)
        self.inputs.append(value)
        return name

    def output(self, name: str, value: str, shape: Shape, integer: bool = False) -> None:
        """An output of float32, or of int64."""
        dtype = self.onnx.TensorProto.INT64 if integer else self.onnx.TensorProto.FLOAT
        self.nodes.append(
            self.onnx.helper.make_node("Identity", [value], [name], name=f"out/{name}")
        )
        self.outputs.append(self.onnx.helper.make_tensor_value_info(name, dtype, shape))

    def weight(self, name: str, array: np.ndarray) -> str:
        """A constant with a name. A second one of the same name is the first: ALBERT's layers share
        their weights in the file, too."""
        return self._constant(name, np.asarray(array))

    def op(self, type: str, *inputs: Any, outputs: int = 1, **attributes: Any) -> Any:
        """The result of a node, or several. An input is a value, or a number or an array: integers
        become int64, all others float32."""
        names = [self._operand(x) for x in inputs]
        node = f"{type}_{len(self.nodes)}"
        results = [node] if outputs == 1 else [f"{node}/{i}" for i in range(outputs)]
        self.nodes.append(self.onnx.helper.make_node(type, names, results, name=node, **attributes))
        return results[0] if outputs == 1 else tuple(results)

    def _operand(self, x: Any) -> str:
        if isinstance(x, str):
            return x
        array = np.asarray(x)
        array = array.astype(np.int64 if array.dtype.kind in "iu" else np.float32)
        text = "_".join(map(repr, array.ravel().tolist()))
        return self._constant(f"const/{array.dtype}{list(array.shape)}/{text}", array)

    def _constant(self, name: str, array: np.ndarray) -> str:
        known = self.constants.setdefault(name, array)
        assert known.shape == array.shape, name
        return name

    def model(self, metadata: Mapping[str, str]) -> Any:
        """The `onnx.ModelProto`, checked."""
        initializers = [
            self.onnx.numpy_helper.from_array(x, name) for name, x in self.constants.items()
        ]
        graph = self.onnx.helper.make_graph(
            self.nodes, "bert_jax", self.inputs, self.outputs, initializers
        )
        model = self.onnx.helper.make_model(
            graph,
            opset_imports=[self.onnx.helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="bert-jax",
        )
        self.onnx.helper.set_model_props(model, dict(metadata))
        return model
