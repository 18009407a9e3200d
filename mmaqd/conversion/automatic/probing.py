"""What can be seen of a detector's layers while it runs, before any of them is quantized."""
from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Callable, Iterator, Sequence

import torch
import torch.nn as nn
from mmengine.logging import MMLogger, print_log

from mmaqd.analysis import count_macs
from mmaqd.conversion.prepare import prepare, refusals, selectable
from mmaqd.quantizers import ActivationQuantizer
from mmaqd.quantizers.batch_statistics import batch_statistics, frozen_norms
from mmaqd.quantizers.calibration import observing
from mmaqd.quantizers.lost_scale import norms_behind

from .predictions import Trace

_FLOAT = dict(weight_quantizer=None, input_quantizer=None)
_ROLES = ('weight_quantizer', 'input_quantizer')
_WARNING, _ERROR = 30, 40


@dataclass
class Layer:
    """What was seen of one layer that rules can select, or of all its parts.

    Attributes:
        classes: Names of its classes.
        refusal: Why it can't be quantized, '' if it can.
        has_quantizers: Whether it is quantized where no rule leaves it in float.
        is_called: Whether anything reaches it.
        can_be_negative: Whether an input was negative, or is not known to come from a ReLU or the
            like.
        sees_image: Whether its input is the image, or made of it without a layer between.
        gets_integers: Whether its inputs were integers from 0 to 255 or differences of such.
        predicts: Whether the loss or the outputs are made of its output without a layer between.
        has_trained_norm: Whether a norm that trains gets its output as it is.
        normalizes_unasked: Whether LIQ normalizes its weights where a config does not say.
    """

    classes: list[str]
    refusal: str = ''
    has_quantizers: bool = False
    is_called: bool = False
    can_be_negative: bool = False
    sees_image: bool = False
    gets_integers: bool = True
    predicts: bool = False
    has_trained_norm: bool = False
    normalizes_unasked: bool = False


@dataclass
class Probe:
    """What was seen of a detector.

    Attributes:
        layers: By module name, under each of the names of a shared module.
        macs: Multiply-accumulates for one image by module name, not only of layers with weights.
        frozen_norms: Number of BN layers that keep their statistics in training.
        loss_failed: Why the loss could not be computed, '' if it could.
    """

    layers: dict[str, Layer]
    macs: dict[str, int] = field(default_factory=dict)
    frozen_norms: int = 0
    loss_failed: str = ''


def probe(build: Callable[[], nn.Module], batches: Sequence[dict]) -> Probe:
    """Run a float detector and note what matters for its quantization.

    Each batch goes through new random weights, so that little depends on their accidents.

    Args:
        build: Builds the float detector.
        batches: What a data loader gives, at least one.

    Raises:
        ValueError: Nothing in the detector can be quantized.
    """
    result = Probe({})
    for seed, batch in enumerate(batches):
        torch.manual_seed(seed)
        model = build()
        if not result.layers:
            result.layers = _layers(model)
            result.frozen_norms = len(frozen_norms(model))
        _prepare(model, result.layers, promise_norms=seed == 0)
        _Run(model, result).on(batch, is_first=seed == 0)
    if len(batches) == 1:
        model = build()
        _prepare(model, result.layers, promise_norms=False)
        _note_defaults(model, result.layers)
    return result


def _layers(model: nn.Module) -> dict[str, Layer]:
    reasons = refusals(model)
    layers = {
        name: Layer(classes, reasons.get(name, ''))
        for name, classes in selectable(model).items()
    }
    if not layers:
        raise ValueError(f'{type(model).__name__} has no layer that could be quantized.')
    return layers


def _prepare(model: nn.Module, layers: dict[str, Layer], promise_norms: bool) -> None:
    """Give quantizers to whatever can be quantized; they will only look."""
    weights = dict(type='mmaqd.LIQWeightQuantizer', bit_width=4)
    inputs = dict(type='mmaqd.LIQActivationQuantizer', bit_width=4)
    rules = [
        dict(pattern=_literal(name), **_FLOAT) for name, layer in layers.items() if layer.refusal
    ]
    with _silence():  # what is decided here holds for nothing
        prepare(model, {
            **weights,
            **(dict(normalize=True) if promise_norms else {})
        }, inputs, rules)


@contextmanager
def _silence() -> Iterator[None]:
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(_ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _literal(name: str) -> str:
    """A pattern that matches this name alone."""
    return name.replace('[', '[[]')


class _Run:
    """One batch through one model."""

    def __init__(self, model: nn.Module, result: Probe) -> None:
        self.model = model
        self.layers = result.layers
        self.result = result
        self.parts: dict[nn.Module, list[Layer]] = {}
        for name, module in model.named_modules(remove_duplicate=False):
            if any(hasattr(module, role) for role in _ROLES):
                layer = self.layers[_owner(name, self.layers)]
                self.parts.setdefault(module, []).append(layer)
        self.trace = Trace(self._all_weighted())

    def _all_weighted(self) -> list[nn.Module]:
        refused = [self.model.get_submodule(n) for n, layer in self.layers.items() if layer.refusal]
        return [*self.parts, *refused]

    def on(self, batch: dict, is_first: bool) -> None:
        with batch_statistics(self.model), norms_behind(self.model) as behind:
            with observing(self.model) as called, self.trace, torch.enable_grad():
                data = self.model.data_preprocessor(batch, training=False)
                self._outputs(data, is_first)
                reached = self._loss(data, called)
            frozen = frozen_norms(self.model)
        self._note_parts(reached)
        for layer, norms in behind.items() if is_first else ():
            for each in self.parts[layer]:
                each.has_trained_norm = bool(norms) and not norms & frozen
        if not is_first:
            _note_defaults(self.model, self.layers)

    def _outputs(self, data: dict, is_first: bool) -> None:
        self._let_gradients_flow()
        self.trace.image = data['inputs']
        with _counting(self.result, is_first, len(data['inputs'])) as run:
            self.trace.ends += [run(self.model, *data.values())]
        self.trace.image = None

    def _loss(self, data: dict, called: set[nn.Module]) -> set[nn.Module]:
        """Compute the loss, and give the layers that calibration will reach.

        Some heads compute a loss in training mode only. Calibration does not do that, so what the
        loss alone uses is not reached then, but one sees what predicts.
        """
        reached, failed = set(called), ''
        for trains in (False, True):
            try:
                self.model.train(trains)  # which gives no model for distilling detectors
                self._let_gradients_flow()
                self.trace.ends.append(self.model(**data, mode='loss'))
                return reached if trains else set(called)
            except Exception as error:
                failed = f'{type(error).__name__}: {error}'
        self.result.loss_failed = failed
        print_log(
            f'The loss can not be computed on these images: {failed}. What it alone uses stays in '
            'float.',
            'current',
            level=_WARNING)
        return reached

    def _let_gradients_flow(self) -> None:
        """Frozen stages are to be seen in the graph, too; train() and eval() freeze them again."""
        for parameter in self.model.parameters():
            parameter.requires_grad_()

    def _note_parts(self, reached: set[nn.Module]) -> None:
        predicting = self.trace.predicting()
        for part, owners in self.parts.items():
            is_negative = part in self.trace.maybe_negative or any(
                each.lowest < 0 for role in _ROLES
                for each in _modules(getattr(part, role)) if isinstance(each, ActivationQuantizer))
            for layer in owners:
                layer.has_quantizers = True
                layer.is_called |= part in reached
                layer.can_be_negative |= is_negative
                layer.predicts |= part in predicting
                layer.sees_image |= part in self.trace.first
                layer.gets_integers &= self.trace.first.get(part, False)


def _modules(part: Any) -> Iterator[nn.Module]:
    return part.modules() if isinstance(part, nn.Module) else iter(())


def _owner(name: str, layers: dict[str, Layer]) -> str:
    """The layer that rules select by this name or, for a part of a layer, by one above it."""
    while name not in layers:
        name = name.rpartition('.')[0]
    return name


def _note_defaults(model: nn.Module, layers: dict[str, Layer]) -> None:
    """Note which weights are normalized where a config does not say."""
    for name, module in model.named_modules(remove_duplicate=False):
        quantizer = getattr(module, 'weight_quantizer', None)
        if quantizer is not None:
            layers[_owner(name, layers)].normalizes_unasked = quantizer.kernel.normalizes


@contextmanager
def _counting(result: Probe, counts: bool, num_images: int) -> Iterator[Callable]:
    """What runs a model, and counts its work for one image if wanted."""

    def run(model: nn.Module, *inputs: Any) -> Any:
        kept = []
        handle = model.register_forward_hook(lambda _, __, output: kept.append(output))
        try:
            macs = count_macs(model, *inputs)
        finally:
            handle.remove()
        result.macs = {name: work // num_images for name, work in macs.items()}
        return kept[0]

    yield run if counts else lambda model, *inputs: model(*inputs)
