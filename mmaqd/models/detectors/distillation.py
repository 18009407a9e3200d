"""A detector that learns from another one while it trains, and is an ordinary one otherwise."""
from __future__ import annotations

from functools import lru_cache
from typing import Any, Callable, Sequence

import torch
import torch.nn as nn
from torch import Tensor

from mmaqd.models.losses import DistillationLoss

from .recording import record_outputs


def distill(model: nn.Module, build_teacher: Callable[[], nn.Module],
            losses: Sequence[DistillationLoss]) -> nn.Module:
    """Let ``model`` learn from a teacher too whenever it computes its training loss.

    ``model`` stays an instance of its class, with the same modules, parameters and state dict: the
    teacher is none of its submodules, so nothing saves, trains, averages or wraps it. It is built
    at the first training loss, and copies of ``model`` build their own.

    Args:
        model: A single-stage detector of MMDetection; changed in place.
        build_teacher: Called without arguments; returns a trained detector that takes the images
            that ``model`` takes.
        losses: What is compared; each adds to the losses of ``model``.

    Returns:
        ``model``.

    Raises:
        ValueError: No losses; a loss names a module that ``model`` does not have, or one that it
            can't compare, or has parameters.
    """
    if not losses:
        raise ValueError('distillation.losses is empty: give at least one loss, e.g. '
                         "dict(type='mmaqd.FeatureDistillationLoss', module='neck').")
    for loss in losses:
        _check(loss, model)
    model.distiller = Distiller(build_teacher, losses)
    model.__class__ = _distilled_class(type(model))
    return model


class Distiller:
    """Teacher and losses. It is no module, so that a detector can hold it unnoticed."""

    def __init__(self, build_teacher: Callable[[], nn.Module],
                 losses: Sequence[DistillationLoss]) -> None:
        self.build_teacher = build_teacher
        self.losses = list(losses)
        self._teacher: nn.Module | None = None

    @property
    def modules(self) -> set[str]:
        """Names of the modules whose outputs are compared."""
        return {loss.module for loss in self.losses}

    def compare(self, student: nn.Module, outputs: dict[str, list[Any]],
                images: Tensor) -> dict[str, Tensor]:
        """The losses of a batch.

        Args:
            student: The detector that learns.
            outputs: What its modules returned for ``images``, see :func:`record_outputs`.
            images: (N, 3, H, W), preprocessed.

        Returns:
            Scalar losses by name.

        Raises:
            ValueError: A module was not called, or two losses have the same name.
        """
        targets = self._targets(student, images)
        losses: dict[str, Tensor] = {}
        for loss in self.losses:
            if not outputs[loss.module] or not targets[loss.module]:
                raise ValueError(
                    f'{type(loss).__name__}: {loss.module} is not called in the forward pass, so '
                    'there is nothing to compare. Name a module that is called as a whole.')
            for name, value in loss(outputs[loss.module], targets[loss.module]).items():
                if name in losses:
                    raise ValueError(f'Two distillation losses are called {name}: give them '
                                     'different modules.')
                losses[name] = value
        return losses

    @torch.no_grad()
    def _targets(self, student: nn.Module, images: Tensor) -> dict[str, list[Any]]:
        if self._teacher is None:
            teacher = self.build_teacher().eval().requires_grad_(False)
            _check_preprocessing(student, teacher)
            # FCOS predicts in units of the stride while it trains, and in pixels otherwise.
            teacher.bbox_head.training = True
            self._teacher = teacher
        teacher = self._teacher.to(images.device)
        with record_outputs(teacher, self.modules) as outputs:
            teacher.bbox_head(teacher.extract_feat(images))
        return outputs

    def __getstate__(self) -> dict:
        return {**self.__dict__, '_teacher': None}


class DistillationMixin:
    """Adds the losses of its :class:`Distiller` to those of the detector that it stands before.

    They are computed from the tensors of the ordinary forward pass, while training only.
    """

    distiller: Distiller

    def loss(self, batch_inputs: Tensor, batch_data_samples: list) -> dict:
        """The detector's losses and, while training, those of the distillation.

        Args:
            batch_inputs: (N, 3, H, W), preprocessed images.
            batch_data_samples: What is known of each image, with its boxes.

        Returns:
            Losses by name.
        """
        if not self.training:
            return super().loss(batch_inputs, batch_data_samples)
        with record_outputs(self, self.distiller.modules) as outputs:
            losses = super().loss(batch_inputs, batch_data_samples)
        return {**losses, **self.distiller.compare(self, outputs, batch_inputs)}

    def __reduce__(self) -> tuple:
        # Its class was made at run time, so copying and pickling name the detector's own class.
        return _new_distilled, (type(self).__bases__[1], ), self.__dict__


@lru_cache(maxsize=None)
def _distilled_class(detector_class: type) -> type:
    return type(f'Distilled{detector_class.__name__}', (DistillationMixin, detector_class),
                dict(__module__=__name__, __doc__=detector_class.__doc__))


def _new_distilled(detector_class: type) -> nn.Module:
    distilled = _distilled_class(detector_class)
    return distilled.__new__(distilled)


def _check(loss: DistillationLoss, model: nn.Module) -> None:
    name = type(loss).__name__
    try:
        module = model.get_submodule(loss.module)
    except AttributeError as error:
        children = ', '.join(name for name, _ in model.named_children())
        raise ValueError(f'{name}: the detector has no module {loss.module!r}; expected the name '
                         f'of one, such as {children} or a part of them.') from error
    if any(True for _ in loss.parameters()):
        raise ValueError(f'{name} has parameters, which nothing would train: a distillation loss '
                         'must have none.')
    loss.check(module)


def _check_preprocessing(student: nn.Module, teacher: nn.Module) -> None:
    forms = [_image_form(each.data_preprocessor) for each in (student, teacher)]
    if forms[0] != forms[1]:
        raise ValueError(
            f'distillation.teacher takes images with {forms[1]}, the student with {forms[0]}. '
            'Both get the same images: take a teacher that was trained with the data_preprocessor '
            'of the student.')


def _image_form(preprocessor: nn.Module) -> dict[str, Any]:
    form = {
        name: getattr(preprocessor, name).flatten().tolist()
        for name in ('mean', 'std') if hasattr(preprocessor, name)
    }
    return {**form, 'swapped channels': getattr(preprocessor, '_channel_conversion', False)}
