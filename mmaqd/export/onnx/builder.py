"""Collects the nodes and constants of an ONNX model."""
from __future__ import annotations

from types import ModuleType
from typing import Any, Mapping, Sequence

import numpy as np

OPSET = 17
IR_VERSION = 8
_PRODUCER = 'mmaqd'


class MissingPackage(ImportError):
    """An optional package is needed."""


def import_onnx() -> ModuleType:
    """The onnx package.

    Raises:
        MissingPackage: It is not installed.
    """
    try:
        import onnx
        import onnx.checker
        import onnx.shape_inference
    except ImportError as error:
        raise MissingPackage('Writing ONNX files needs the package onnx: '
                             "pip install 'mmaqd[export]'.") from error
    return onnx


class Builder:
    """An ONNX model in the making.

    Args:
        opset: Version of the standard operators.
        ir_version: Version of the file format.
    """

    def __init__(self, opset: int = OPSET, ir_version: int = IR_VERSION) -> None:
        self.onnx = import_onnx()
        self.opset = opset
        self.ir_version = ir_version
        self.domains = {'': opset}
        self._nodes: list = []
        self._initializers: dict[str, Any] = {}
        self._constants: dict[tuple, str] = {}
        self._inputs: list = []
        self._names: set[str] = set()

    def input(self, name: str, dtype: np.dtype, shape: Sequence[int | str]) -> str:
        """Declare an input of the model; a string in the shape names an axis of any length."""
        element = self.onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        self._inputs.append(self.onnx.helper.make_tensor_value_info(name, element, shape))
        return self._claim(name)

    def constant(self, value: Any, dtype: Any | None = None, name: str = 'constant') -> str:
        """Name of a constant; equal ones are stored once."""
        array = np.ascontiguousarray(value, dtype).reshape(np.shape(value))
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = self.initializer(self.onnx.numpy_helper.from_array(array), name)
        return self._constants[key]

    def initializer(self, tensor: Any, name: str) -> str:
        """Add a tensor of the onnx package under a name that is made unique."""
        tensor.name = self._claim(self.free_name(name))
        self._initializers[tensor.name] = tensor
        return tensor.name

    def node(self,
             operator: str,
             inputs: Sequence[str],
             name: str,
             domain: str = '',
             **attributes: Any) -> str:
        """Add a node with one output; returns the output's name, ``name`` if it is free."""
        return self.node_with_outputs(operator, inputs, [self.free_name(name)], domain,
                                      **attributes)[0]

    def node_with_outputs(self,
                          operator: str,
                          inputs: Sequence[str],
                          outputs: Sequence[str],
                          domain: str = '',
                          **attributes: Any) -> list[str]:
        """Add a node with outputs of these names, which must be free."""
        outputs = [self._claim(name) for name in outputs]
        attributes = {key: value for key, value in attributes.items() if value is not None}
        self._nodes.append(
            self.onnx.helper.make_node(
                operator, list(inputs), outputs, outputs[0], domain=domain, **attributes))
        return outputs

    def reduced(self, operator: str, tensor: str, axes: Sequence[int], name: str,
                keepdims: int) -> str:
        """Add ReduceMax or ReduceMin, whose axes are an input from opset 18 on."""
        if self.opset < 18:
            return self.node(operator, [tensor], name, axes=list(axes), keepdims=keepdims)
        inputs = [tensor, self.constant(list(axes), np.int64)]
        return self.node(operator, inputs, name, keepdims=keepdims)

    def free_name(self, name: str) -> str:
        """``name``, with a number behind it if it is taken."""
        free, number = name, 1
        while free in self._names:
            free, number = f'{name}_{number}', number + 1
        return free

    def model(self,
              outputs: Sequence[str],
              shapes: Mapping[str, Sequence[int]] | None = None,
              **metadata: str) -> Any:
        """The model, checked, with the shapes and types of all tensors inferred.

        Args:
            outputs: Names of the tensors that it gives.
            shapes: Shapes of float32 outputs that can't be inferred.
            metadata: Becomes the model's metadata properties.
        """
        helper = self.onnx.helper
        infos = [self._output(each, (shapes or {}).get(each)) for each in outputs]
        graph = helper.make_graph(self._nodes, _PRODUCER, self._inputs, infos,
                                  list(self._initializers.values()))
        imports = [helper.make_opsetid(*each) for each in self.domains.items()]
        model = helper.make_model(
            graph, opset_imports=imports, ir_version=self.ir_version, producer_name=_PRODUCER)
        helper.set_model_props(model, metadata)
        model = self.onnx.shape_inference.infer_shapes(
            model, check_type=True, strict_mode=True, data_prop=True)
        self.onnx.checker.check_model(model, full_check=True)
        return model

    def _output(self, name: str, shape: Sequence[int] | None) -> Any:
        if shape is None:
            return self.onnx.ValueInfoProto(name=name)
        return self.onnx.helper.make_tensor_value_info(name, self.onnx.TensorProto.FLOAT, shape)

    def _claim(self, name: str) -> str:
        assert name not in self._names, name
        self._names.add(name)
        return name
