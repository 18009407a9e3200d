"""From a detector to its graph of operators, by ``torch.export``."""
from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Iterator

import torch
import torch.nn as nn
from torch import Tensor, fx

from mmaqd.quantizers import Quantizer, UninitializedIntervalError, modes_kept


@dataclass(frozen=True)
class Captured:
    """The operators of a detector in evaluation, from the image to the prediction maps.

    Attributes:
        graph: Graph of torch's operators, levels unrolled, each quantized conv one operator.
        tensors: Parameters, buffers and constants by the name of their placeholder.
        names: Names of parameters and buffers in the detector by that of their placeholder.
        image: Name of the placeholder of the image.
        outputs: Nodes of the predictions; a tuple over the levels for each kind.
        program: What the graph was taken from; it can be run.
    """

    graph: fx.Graph
    tensors: dict[str, Tensor]
    names: dict[str, str]
    image: str
    outputs: tuple[tuple[fx.Node, ...], ...]
    program: Any = field(repr=False, compare=False)

    def layer(self, placeholder: fx.Node) -> str:
        """Name of the module that a parameter belongs to."""
        return self.names[placeholder.name].rpartition('.')[0]


class _Raw(nn.Module):
    """A detector as a function from the normalized image to the prediction maps."""

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, image: Tensor) -> Any:
        return self.detector(image, mode='tensor')


def capture(detector: nn.Module, height: int, width: int, channels: int = 3) -> Captured:
    """Capture the operators of a detector.

    Args:
        detector: A one-stage detector of MMDetection, quantized or not.
        height: Of the image; every level of the pyramid must have at least one pixel.
        width: Likewise.
        channels: Likewise.

    Raises:
        UninitializedIntervalError: A quantizer has no interval yet.
    """
    _check_initialized(detector)
    device = next(detector.parameters()).device
    image = torch.zeros(1, channels, height, width, device=device)
    with modes_kept(detector), torch.no_grad():
        program = torch.export.export(_Raw(detector.eval()), (image, ), strict=False)
        program = program.run_decompositions({})
    signature = program.graph_signature
    state = {**program.state_dict, **program.constants}
    sources = {**signature.inputs_to_parameters, **signature.inputs_to_buffers,
               **signature.inputs_to_lifted_tensor_constants}  # yapf: disable
    results = next(node for node in program.graph.nodes if node.op == 'output').args[0]
    outputs = torch.utils._pytree.tree_unflatten(list(results), program.call_spec.out_spec)
    return Captured(
        graph=program.graph,
        tensors={
            name: state[source].detach()
            for name, source in sources.items()
        },
        names={
            name: source.removeprefix('detector.')
            for name, source in sources.items()
        },
        image=signature.user_inputs[0],
        outputs=tuple(_by_level(outputs)),
        program=program)


def _by_level(outputs: Any) -> Iterator[tuple[fx.Node, ...]]:
    kinds = outputs if isinstance(outputs, (tuple, list)) else (outputs, )
    for kind in kinds:
        yield tuple(kind) if isinstance(kind, (tuple, list)) else (kind, )


def _check_initialized(detector: nn.Module) -> None:
    missing = [
        module.name for module in detector.modules()
        if isinstance(module, Quantizer) and not bool(module.initialized)
    ]
    if missing:
        raise UninitializedIntervalError(
            f'{len(missing)} quantizers have no interval yet, {missing[0]} among them, so there '
            'are no integers to write. Load the checkpoint of a trained or calibrated low-bit '
            'model (a float checkpoint has no intervals; tools/calibrate.py makes one that has).')
