"""One rule for each operator of torch: what it means for the values of a detector.

A rule is called with a :class:`Reader` and the node and returns a value of
:mod:`mmaqd.export.values`. An operator without a rule is refused by name.
"""
from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Callable

import numpy as np
import torch
from torch import Tensor, fx

from mmaqd.functional.operators import kernel_from_text

from .capture import Captured
from .storage import StreamCodes, root
from .values import Applied, ConvValue, Image, Pooled, Quantized, Sum, Upsampled, Value

Rule = Callable[['Reader', fx.Node], Value]
RULES: dict[str, Rule] = {}


class UnsupportedOperator(NotImplementedError):
    """A detector computes something that has no integer form here."""


def rule(*operators: str) -> Callable[[Rule], Rule]:
    """Register a function as the rule of operators, named as torch prints them."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(operators, function))
        return function

    return register


@dataclass
class Reader:
    """Reads the values off a captured graph.

    Attributes:
        captured: The graph.
        mean: Integer mean of the image, (C,).
        allow_float: Whether convs may stay in float.
        values: Those of the nodes read so far.
        uses: How often each layer was used so far.
        trained: The codes of values that a stream was trained in.
    """

    captured: Captured
    mean: np.ndarray
    allow_float: bool = False
    values: dict[fx.Node, Value] = field(default_factory=dict)
    uses: dict[str, int] = field(default_factory=dict)
    trained: dict[Value, StreamCodes] = field(default_factory=dict)

    def read(self) -> None:
        """Apply the rules to all nodes.

        Raises:
            UnsupportedOperator: An operator has no rule, or an operand it has no rule for.
        """
        for node in self.captured.graph.nodes:
            if node.op == 'placeholder' and node.name == self.captured.image:
                self.values[node] = Image(self.mean)
            if node.op != 'call_function':
                continue
            # Operators of torch are named by their text, Python's by their name.
            found = RULES.get(str(node.target)) or RULES.get(node.target.__name__)
            if found is None:
                raise self.unsupported(node, f'{node.target} has no integer form here')
            value = found(self, node)
            if value is not None:
                self.values[node] = value

    def value(self, node: fx.Node, argument: Any) -> Value:
        """The value of an operand of ``node``."""
        if argument not in self.values:
            raise self.unsupported(node, f'{node.target} of something that is no feature map')
        return self.values[argument]

    def conv(self, node: fx.Node, argument: Any) -> ConvValue:
        """An operand that is the output of a conv, which an affine function can be folded into."""
        value = self.value(node, argument)
        if not isinstance(value, ConvValue) or value.rectified:
            raise self.unsupported(
                node, f'{node.target} can be folded into the conv in front of '
                'it only, and there is none')
        return value

    def array(self, argument: Any) -> np.ndarray:
        """A parameter, buffer or number as float64."""
        if isinstance(argument, fx.Node):
            return self.tensor(argument).double().cpu().numpy()
        return np.float64(argument)

    def is_constant(self, argument: Any) -> bool:
        """Whether an operand is a number or one of the detector's tensors."""
        if isinstance(argument, fx.Node):
            return argument.name in self.captured.tensors
        return isinstance(argument, (int, float))

    def tensor(self, node: fx.Node) -> Tensor:
        return self.captured.tensors[node.name]

    def unsupported(self, node: fx.Node, problem: str) -> UnsupportedOperator:
        modules = list((node.meta.get('nn_module_stack') or {'': ('', '')}).values())
        where = modules[-1][0].removeprefix("L['self'].").removeprefix('detector.')
        return UnsupportedOperator(
            f'{where or "the detector"}: {problem}. Integer graphs have convs, '
            'BN, ReLU, additions, max-pooling, nearest upsampling and constant '
            'factors (mmaqd/export/rules.py).')

    def use(self, layer: str) -> str:
        """A name for the next use of a layer."""
        count = self.uses.get(layer, 0)
        self.uses[layer] = count + 1
        return layer if count == 0 else f'{layer}[{count}]'


@rule('mmaqd.quant_conv2d.default')
def _quant_conv(reader: Reader, node: fx.Node) -> Value:
    (x, weight, bias, input_parameters, weight_parameters, input_text, weight_text, *geometry,
     groups) = node.args
    layer = reader.captured.layer(weight)
    kernel, input_kernel = kernel_from_text(weight_text), kernel_from_text(input_text)
    source = reader.value(node, x)
    if kernel is None or (input_kernel is None and not isinstance(source, Image)):
        return _float_conv(reader, node, layer, source)
    parameters = [reader.tensor(each) for each in weight_parameters]
    weights = reader.tensor(weight).float()
    codes = kernel.codes(weights, *parameters).to(torch.int16).cpu().numpy()
    scale = np.broadcast_to(
        np.asarray(torch.as_tensor(kernel.scale(*parameters)).double().cpu()), codes.shape[:1])
    quantized = None
    if input_kernel is not None:
        inputs = [reader.tensor(each) for each in input_parameters]
        offset = input_kernel.offset(*inputs)
        quantized = Quantized(input_kernel.grid, float(input_kernel.scale(*inputs)),
                              0.0 if offset is None else float(offset))
        scale = scale * quantized.unit
    shift = np.zeros(len(codes)) if bias is None else reader.array(bias)
    return ConvValue(
        reader.use(layer), layer, source, quantized, codes,
        (*(tuple(each) for each in geometry), groups), scale, shift)


def _float_conv(reader: Reader, node: fx.Node, layer: str, source: Value) -> Value:
    (_, weight, bias, _, weight_parameters, input_text, weight_text, *geometry, groups) = node.args
    part = 'input is' if weight_text else 'weights are'
    if not reader.allow_float or input_text:
        raise UnsupportedOperator(
            f'{layer}: its {part} in float, so it has no integer form. Quantize weights and input, '
            'or leave both in float and convert with allow_float (--allow-float).')
    weights, kernel = reader.tensor(weight).float(), kernel_from_text(weight_text)
    if kernel is not None:
        weights = kernel.forward(weights, *(reader.tensor(each) for each in weight_parameters))
    return _value_in_float(reader, layer, source, weights, bias, (*geometry, groups))


def _value_in_float(reader: Reader, layer: str, source: Value, weights: Tensor, bias: Any,
                    geometry: tuple) -> ConvValue:
    """A conv that stays in float; stride, padding and dilation are one number or two."""
    *lengths, groups = geometry
    pairs = tuple(tuple(each) * (2 // len(each)) for each in lengths)
    shift = np.zeros(len(weights)) if bias is None else reader.array(bias)
    return ConvValue(
        reader.use(layer), layer, source, None,
        weights.cpu().numpy(), (*pairs, groups), np.ones(len(weights)), shift)


@rule('aten.conv2d.default')
def _plain_conv(reader: Reader, node: fx.Node) -> Value:
    """A conv that no quantizer was asked for."""
    defaults = (None, [1], [0], [1], 1)
    x, weight, bias, *geometry = (*node.args, *defaults[len(node.args) - 2:])
    layer = reader.captured.layer(weight)
    if not reader.allow_float:
        raise UnsupportedOperator(
            f'{layer}: its weights are in float, so it has no integer form. Quantize weights and '
            'input, or convert with allow_float (--allow-float).')
    return _value_in_float(reader, layer, reader.value(node, x),
                           reader.tensor(weight).float(), bias, tuple(geometry))


@rule('aten._native_batch_norm_legit_no_training.default')
def _batch_norm(reader: Reader, node: fx.Node) -> Value:
    x, weight, bias, mean, var, _, eps = node.args
    inverse = 1 / np.sqrt(reader.array(var) + eps)
    gamma = inverse if weight is None else reader.array(weight) * inverse
    shift = 0.0 if bias is None else reader.array(bias)
    value = reader.conv(node, x).affine(gamma, shift - reader.array(mean) * gamma)
    if not (np.isfinite(value.factor).all() and np.isfinite(value.offset).all()):
        raise ValueError(f'{value.layer}: the BN behind it has a variance of zero, no eps, or '
                         'values that are not finite, so its output is no number.')
    return value


@rule('getitem')
def _getitem(reader: Reader, node: fx.Node) -> Value:
    return reader.value(node, node.args[0]) if node.args[1] == 0 else None


@rule('aten.relu.default')
def _relu(reader: Reader, node: fx.Node) -> Value:
    value = reader.value(node, node.args[0])
    if value.nonnegative:
        return value
    if isinstance(value, (Pooled, Upsampled)):  # both commute with it
        return replace(value, source=_rectified(reader, node, value.source))
    return _rectified(reader, node, value)


def _rectified(reader: Reader, node: fx.Node, value: Value) -> Value:
    if isinstance(value, (ConvValue, Sum)):
        return replace(value, rectified=True)
    raise reader.unsupported(node, 'a ReLU of something that is neither conv nor sum')


@rule('aten.clamp.default', 'aten.clamp_min.default')
def _clamp(reader: Reader, node: fx.Node) -> Value:
    low, high = (*node.args[1:], None, None)[:2]
    if low != 0 or high is not None:
        raise reader.unsupported(node, f'clamping to {low}..{high} has no integer form here')
    return _relu(reader, node)


@rule('aten.add.Tensor')
def _add(reader: Reader, node: fx.Node) -> Value:
    a, b = node.args[:2]
    if node.kwargs.get('alpha', 1) != 1:
        raise reader.unsupported(node, 'a weighted addition has no integer form here')
    for value, constant in ((a, b), (b, a)):
        if reader.is_constant(constant):
            return reader.conv(node, value).affine(1.0, reader.array(constant).reshape(-1))
    return Sum(node.name, (reader.value(node, a), reader.value(node, b)))


@rule('aten.mul.Tensor', 'aten.div.Tensor')
def _mul(reader: Reader, node: fx.Node) -> Value:
    a, b = node.args[:2]
    value, constant = (a, b) if reader.is_constant(b) else (b, a)
    if not reader.is_constant(constant):
        raise reader.unsupported(node, 'a product of two feature maps has no integer form here')
    factor = reader.array(constant).reshape(-1)
    if 'div' in str(node.target):
        if value is b:
            raise reader.unsupported(node, 'dividing by a feature map has no integer form here')
        factor = 1 / factor
    conv = reader.value(node, value)
    if isinstance(conv, ConvValue) and conv.rectified and (factor > 0).all():
        return conv.affine(factor, 0.0)  # commutes with the ReLU
    return reader.conv(node, value).affine(factor, 0.0)


@rule('aten.max_pool2d.default')
def _max_pool(reader: Reader, node: fx.Node) -> Value:
    _, kernel, *rest = node.args
    stride, padding, dilation, ceil_mode = (*rest, *([], [0], [1], False)[len(rest):])
    pairs = {
        name: tuple(value) * (2 // len(value))
        for name, value in dict(
            kernel=kernel, stride=stride or kernel, padding=padding, dilation=dilation).items()
    }
    return Pooled(node.name, reader.value(node, node.args[0]), dict(pairs, ceil_mode=ceil_mode))


@rule('aten.upsample_nearest2d.vec')
def _upsample(reader: Reader, node: fx.Node) -> Value:
    sizes = tuple(
        tuple(int(side) for side in each.meta['val'].shape[2:]) for each in (node.args[0], node))
    return Upsampled(node.name, reader.value(node, node.args[0]), sizes)


@rule('aten.exp.default', 'aten.sigmoid.default')
def _function(reader: Reader, node: fx.Node) -> Value:
    function = str(node.target).split('.')[1]
    return Applied(node.name, reader.value(node, node.args[0]), function)


@rule('mmaqd.fake_quantize.default')
def _stream(reader: Reader, node: fx.Node) -> Value:
    """The value stays; in which integers is decided by what it is added to."""
    x, parameters, text = node.args
    kernel = kernel_from_text(text)
    value = reader.value(node, x)
    unit = float(kernel.scale(*(reader.tensor(each) for each in parameters)))
    reader.trained[root(value)] = StreamCodes(unit, kernel.bit_width)
    return value


@rule('aten._assert_tensor_metadata.default')
def _nothing(reader: Reader, node: fx.Node) -> None:
    return None


@rule('aten._to_copy.default', 'aten.clone.default', 'aten.detach.default', 'aten.dropout.default')
def _same(reader: Reader, node: fx.Node) -> Value:
    return reader.value(node, node.args[0])
