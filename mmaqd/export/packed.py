"""From a config and a checkpoint to a packed file, an eighth or a fifteenth of its size."""
from __future__ import annotations

import json
import os.path as osp
from dataclasses import dataclass
from pathlib import Path

import mmdet
import mmengine
import torch
import torch.nn as nn
from mmengine.config import Config
from mmengine.logging import print_log
from torch import Tensor

from mmaqd.checkpoints import WeightLayout, pack_state, read_checkpoint
from mmaqd.invocation import command, same_options
from mmaqd.layers import QuantLayer, QuantMultiheadAttention
from mmaqd.quantizers import Quantizer, UninitializedIntervalError, WeightQuantizer
from mmaqd.version import __version__

from .files import check_out, load_trained, sha256_of

_SUFFIX = '.safetensors'
_MEGABYTE = 1e6


@dataclass(frozen=True)
class PackedFile:
    """What was written.

    Attributes:
        path: The file.
        num_bytes: Its size.
        float_bytes: Size of the same weights, biases and BN in float.
    """

    path: str
    num_bytes: int
    float_bytes: int

    @property
    def ratio(self) -> float:
        """How many times smaller the file is than the float weights."""
        return self.float_bytes / self.num_bytes

    def __str__(self) -> str:
        return (f'{self.path}: {self.num_bytes / _MEGABYTE:.2f} MB, 1/{self.ratio:.1f} of the '
                f'float weights ({self.float_bytes / _MEGABYTE:.2f} MB)')


def pack_checkpoint(config: str,
                    checkpoint: str,
                    out: str,
                    cfg_options: dict | None = None) -> PackedFile:
    """Write a packed file of a trained low-bit detector: its codes, in their own bits.

    What is evaluated is the same, bit for bit; the float weights are not in the file. It is read
    back and compared before this function returns.

    Args:
        config: Path of the low-bit config.
        checkpoint: Its trained (or calibrated) checkpoint.
        out: File to write, ending in .safetensors.
        cfg_options: Dotted keys of the config and their new values.

    Raises:
        FileNotFoundError: The config or the checkpoint is missing.
        ValueError: ``out`` doesn't end in .safetensors; the model is a float one; the grid points
            of a quantizer are not a scale times codes.
        OSError: ``out`` can't be written; seen before the work.
        UninitializedIntervalError: A quantizer has no value yet.
        CheckpointError, CheckpointMismatchError: The checkpoint is damaged or another model's.
        ModuleNotFoundError: safetensors is not installed.
    """
    check_out(out, _SUFFIX)
    loaded = load_trained(config, checkpoint, cfg_options)
    model = loaded.detector
    about = dict(
        dataset_meta=json.dumps(loaded.meta.get('dataset_meta', {})),
        config=_config_text(loaded.cfg),
        config_name=osp.basename(config),
        checkpoint_sha256=sha256_of(checkpoint),
        mmaqd_version=__version__,
        torch_version=torch.__version__,
        mmengine_version=mmengine.__version__,
        mmdet_version=mmdet.__version__)
    layouts = store_codes(model)
    state = model.state_dict()
    content = pack_state(state, layouts, about, _parts(model))
    Path(out).write_bytes(content)
    _check_written(out, state)
    packed = PackedFile(out, len(content), _float_bytes(model))
    test = command('test', config, out, *same_options(cfg_options))
    print_log(f'Wrote {packed}. Next: {test}', 'current')
    return packed


def store_codes(model: nn.Module) -> dict[str, WeightLayout]:
    """Let the weights of all quantized layers be grid points, of which only the codes are known.

    Args:
        model: A low-bit detector; changed in place. It evaluates as before, and can't be trained.

    Returns:
        How the codes of each weight lie, by its key in the state of the model; for a projection
        of an attention by the key that it would have with a weight of its own.

    Raises:
        UninitializedIntervalError: A quantizer has no value yet; nothing is changed.
        ValueError: It is a float model, two layers have one weight, or as for
            :meth:`WeightQuantizer.store_codes`.
    """
    for module in model.modules():
        if isinstance(module, Quantizer) and not bool(module.initialized):
            raise UninitializedIntervalError(
                f'{module.name}: the interval has no value in the checkpoint, so there are no '
                'codes to pack. Give a trained or calibrated low-bit checkpoint.')
    layers = {
        name: module
        for name, module in model.named_modules(remove_duplicate=False)
        if isinstance(module, QuantLayer) and isinstance(module.weight_quantizer, WeightQuantizer)
    }
    if not layers:
        raise ValueError(f'This {type(model).__name__} has no quantized weights, so there is '
                         'nothing to pack. Give a low-bit config.')
    _check_not_tied(layers)
    with torch.no_grad():
        for layer in dict.fromkeys(layers.values()):
            if layer.weight_quantizer.stored_scale is None:
                layer.weight_quantizer.store_codes(layer.channels_first_weight)
    return {f'{name}.weight': _layout(layer) for name, layer in layers.items()}


def _layout(layer: QuantLayer) -> WeightLayout:
    has_axis = layer.weight_quantizer.granularity == 'per_channel'
    return WeightLayout(layer.weight_quantizer.grid, layer.packed_axis if has_axis else 0)


def _parts(model: nn.Module) -> dict[str, list[str]]:
    """Keys of the weights that make up the parameters of quantized attentions, by their keys."""
    return {
        f'{name}.{key}': [f'{name}.{part}' for part in parts]
        for name, module in model.named_modules(remove_duplicate=False)
        if isinstance(module, QuantMultiheadAttention)
        for key, parts in module.packed_parts.items()
    }


def _check_not_tied(layers: dict[str, QuantLayer]) -> None:
    """Refuse a weight that two quantizers would overwrite by their grid points."""
    owners: dict[int, tuple[str, QuantLayer]] = {}
    for name, layer in layers.items():
        other, owner = owners.setdefault(layer.weight.data_ptr(), (name, layer))
        if owner is not layer:
            raise ValueError(f'{other} and {name} have one weight and two quantizers, so there are '
                             'two sets of codes. Share the layer, or leave it in float.')


def _config_text(cfg: Config) -> str:
    """The config without what only this machine has."""
    cfg = cfg.copy()
    cfg.update(load_from=None, resume=False, work_dir=None)
    return cfg.pretty_text


def _check_written(out: str, state: dict[str, Tensor]) -> None:
    written = read_checkpoint(out)['state_dict']
    different = [key for key in state if not torch.equal(state[key], written[key])]
    if different or written.keys() != state.keys():
        raise RuntimeError(f'{out} does not hold what was packed: {different[:3]} differ.')


def _float_bytes(model: nn.Module) -> int:
    """Bytes of the state of the float model, a tensor under two names counted once."""
    counted = {
        tensor.data_ptr(): tensor.numel() * tensor.element_size()
        for key, tensor in model.state_dict().items() if '_quantizer.' not in key
    }
    return sum(counted.values())
