"""From a config and a checkpoint to one ONNX file that detects: image in, boxes out."""
from __future__ import annotations

import json
import os.path as osp
from typing import Any

import numpy as np
import torch
import torch.nn as nn
from mmengine.config import Config
from mmengine.logging import print_log

from mmaqd.conversion import quantization_table
from mmaqd.engine.pipelines import evaluation_pipeline
from mmaqd.invocation import command
from mmaqd.version import __version__

from .capture import capture
from .convert import convert_loaded
from .files import Loaded, check_out, load_trained, sha256_of
from .graph import IntegerGraph
from .image import integer_mean
from .onnx.builder import Builder, import_onnx
from .onnx.decode import add_detections
from .onnx.float_network import add_float_network
from .onnx.packed import packed_versions
from .onnx.qonnx import to_qonnx
from .onnx.settings import Decoding, decoding_of
from .onnx.writer import KINDS, add_network
from .runtime import METADATA, TESTED, Detector, import_engine, pattern_image

# What a test pipeline may consist of, and options that change what its steps do.
_STEPS = {'LoadImageFromFile', 'LoadAnnotations', 'PackDetInputs', 'Resize'}
_OPTIONS = {'interpolation', 'backend', 'scale_factor', 'color_type', 'to_float32'}


def export_detector(config: str,
                    checkpoint: str,
                    out: str,
                    *,
                    size: tuple[int, int] | None = None,
                    batch: int = 1,
                    dynamic: bool = False,
                    raw: bool = False,
                    qonnx: bool = False,
                    packed: bool = False,
                    engine: str = 'onnxruntime',
                    in_float: bool = False,
                    stream_bit_width: int = 8,
                    allow_float: bool = False,
                    cfg_options: dict | None = None) -> dict[str, Any]:
    """Write a trained detector as an ONNX file with its decoding, NMS and recipe.

    Its input is ``input``, uint8 (N, 3, H, W); its outputs ``dets`` (N, K, 5) and ``labels``
    (N, K), or the prediction maps with ``raw``. How images are preprocessed stands in its metadata,
    which :mod:`mmaqd.export.runtime` reads.

    Args:
        config: Path of the config.
        checkpoint: Its trained or calibrated checkpoint.
        out: File to write, ending in .onnx.
        size: (height, width) of the input; None for the scale of the test pipeline, padded.
        batch: Images at a time.
        dynamic: Let the file take images of any number and size; the above are its usual ones.
        raw: Write prediction maps, without decoding and NMS.
        qonnx: Write the prediction maps as QONNX, for FPGA tools: see
            :func:`mmaqd.export.onnx.to_qonnx`.
        packed: Store weights of up to 4 bits in 4 or 2 bits, for ONNX Runtime.
        engine: ``'onnxruntime'`` or ``'openvino'``: whose integer kernels the file is for.
        in_float: Write the float network of a float config, to compare with.
        stream_bit_width, allow_float, cfg_options: As for :func:`mmaqd.export.convert_detector`.

    Returns:
        The recipe in the metadata.

    Raises:
        ValueError: ``out``, ``size`` or ``batch`` is no good, or see
            :func:`mmaqd.export.convert_detector`.
        UnsupportedSetting: The head or a setting of its test_cfg has no form in a file.
        OSError: ``out`` can't be written; seen before the work.
        MissingPackage: onnx is not installed.
    """
    check_out(out, '.onnx')
    _check_options(batch, dynamic, qonnx, packed, engine, in_float)
    import_onnx()
    raw = raw or qonnx
    if not raw:
        import_engine(engine)
    loaded = load_trained(config, checkpoint, cfg_options)
    recipe = _recipe(loaded, size)
    recipe.update(
        batch=batch,
        dynamic=dynamic,
        raw=raw,
        engine='qonnx' if qonnx else engine,
        integer=not in_float,
        checkpoint_sha256=sha256_of(checkpoint))
    decoding = None if raw else decoding_of(loaded.detector.bbox_head)
    if decoding is not None:
        recipe['thresholds'] = decoding.thresholds()
    print_log(f'Converting {config} ...', 'current')
    graph = None if in_float else convert_loaded(
        loaded, stream_bit_width=stream_bit_width, allow_float=allow_float)
    model = _model(loaded.detector, graph, recipe, decoding, packed)
    _save(model, recipe, out)
    if not raw:
        print_log('Running the test image ...', 'current')
        recipe['self_test'] = _self_test(out, recipe)
        _save(model, recipe, out)
    print_log(
        f'Wrote {out}, {osp.getsize(out) / 1e6:.2f} MB, for images of {recipe["size"][1]} x '
        f'{recipe["size"][0]}.{"" if qonnx else " Next: " + _next_command(out, recipe)}', 'current')
    return recipe


def _check_options(batch: int, dynamic: bool, qonnx: bool, packed: bool, engine: str,
                   in_float: bool) -> None:
    if batch < 1:
        raise ValueError(f'--batch must be at least 1, but got {batch}.')
    if dynamic and (in_float or qonnx):
        raise ValueError('--dynamic: the float network and QONNX are written for one size; leave '
                         'out --float and --qonnx, or give a --size instead.')
    if packed and (in_float or qonnx or engine != 'onnxruntime'):
        raise ValueError(
            '--packed: packed weights are those of an integer network in ONNX Runtime; '
            'leave out --float, --qonnx and --engine, or --packed.')
    if qonnx and in_float:
        raise ValueError('--qonnx: QONNX is a form of the integer network; leave out --float.')


def _next_command(out: str, recipe: dict) -> str:
    if not recipe['raw']:
        return command('detect', out, 'IMAGE_OR_FOLDER', '--out', 'detected')
    name = osp.basename(out).removesuffix('.onnx')
    return command('benchmark', f'{recipe["engine"]}:{name}={out}', '--shape', recipe['batch'], 3,
                   *recipe['size'])


def _model(detector: nn.Module, graph: IntegerGraph | None, recipe: dict, decoding: Decoding | None,
           packed: bool) -> Any:
    """The network of a graph, or the float one of the detector, and its decoding."""
    height, width = recipe['size']
    if recipe['engine'] == 'qonnx':
        return to_qonnx(graph, height, width, recipe['batch'])
    builder = Builder(*packed_versions(graph)) if packed else Builder()
    shape = [recipe['batch'], 3, height, width]
    if recipe['dynamic']:
        shape = ['batch', 3, 'height', 'width']
    image = builder.input('input', np.uint8, shape)
    if graph is None:
        captured = capture(detector, height, width)
        maps = add_float_network(builder, captured, integer_mean(detector), image)
        maps = _renamed(builder, maps)
    else:
        maps = add_network(builder, graph, image, engine=recipe['engine'], packed=packed)
    if decoding is None:
        return builder.model([name for levels in maps for name in levels])
    limits = _limits(builder, image, recipe)
    return builder.model(list(add_detections(builder, decoding, maps, limits)))


def _limits(builder: Builder, image: str, recipe: dict) -> str:
    """Where boxes end: with the resized image, as MMDetection's; if any size may come, padded."""
    if recipe['dynamic']:
        shape = builder.node('Shape', [image], 'input_shape')
        sides = builder.node('Gather', [shape, builder.constant([3, 2, 3, 2], np.int64)], 'sides')
        return builder.node('Cast', [sides], 'limits', to=builder.onnx.TensorProto.FLOAT)
    (height, width), scale = recipe['size'], recipe['resize']['scale']
    return builder.constant([min(width, scale[0]), min(height, scale[1])] * 2, np.float32)


def _renamed(builder: Builder, maps: tuple[tuple[str, ...], ...]) -> tuple[tuple[str, ...], ...]:
    return tuple(
        tuple(
            builder.node('Identity', [name], f'{kind}.{level}') for level, name in enumerate(names))
        for kind, names in zip(KINDS, maps))


def _recipe(loaded: Loaded, size: tuple[int, int] | None) -> dict[str, Any]:
    """How images are preprocessed, and what the file was made of."""
    cfg, detector = loaded.cfg, loaded.detector
    preprocessor, resize = detector.data_preprocessor, _resize(cfg)
    divisor = int(getattr(preprocessor, 'pad_size_divisor', 1))
    height, width = size or (-(-side // divisor) * divisor for side in resize['scale'][::-1])
    if height < 1 or width < 1 or height % divisor or width % divisor:
        raise ValueError(f'--size: got {height} x {width}, but the sides must be multiples of '
                         f'{divisor} (pad_size_divisor).')
    if size:
        resize['scale'] = [width, height]
    return dict(
        version=1,
        classes=_classes(loaded),
        size=[height, width],
        resize=resize,
        pad=dict(divisor=divisor, value=integer_mean(detector).tolist()),
        color='rgb' if getattr(preprocessor, '_channel_conversion', False) else 'bgr',
        layers=[
            dict(name=row.module, weight_bits=row.weight_bits, input_bits=row.input_bits)
            for row in quantization_table(detector)
        ],
        versions=dict(mmaqd=__version__, torch=torch.__version__, onnx=import_onnx().__version__),
        config=dict(name=osp.basename(str(cfg.filename or '')), text=cfg.pretty_text))


def _resize(cfg: Config) -> dict[str, Any]:
    found = None
    for step in evaluation_pipeline(cfg):
        name = str(step.get('type', '')).rpartition('.')[2]
        if name not in _STEPS or set(step) & _OPTIONS:
            raise ValueError(
                f'The test pipeline has {dict(step)}, which a file can\'t do: it knows '
                f'{", ".join(sorted(_STEPS))}, without {", ".join(sorted(_OPTIONS))}.')
        if name == 'Resize' and 'scale' in step:
            found = dict(
                scale=[int(side) for side in step['scale']],
                keep_ratio=bool(step.get('keep_ratio', False)))
    if found is not None:
        return found
    raise ValueError('The test pipeline of the config has no Resize with a scale, so how images '
                     'are preprocessed is not known. Give it one.')


def _classes(loaded: Loaded) -> list[str]:
    meta = loaded.meta.get('dataset_meta') or {}
    metainfo = (loaded.cfg.get('test_dataloader') or {}).get('dataset', {}).get('metainfo') or {}
    named = meta.get('classes') or metainfo.get('classes')
    number = loaded.detector.bbox_head.num_classes
    return [str(each) for each in named] if named else [f'class {each}' for each in range(number)]


def _save(model: Any, recipe: dict, out: str) -> None:
    onnx = import_onnx()
    onnx.helper.set_model_props(model, {METADATA: json.dumps(recipe)})
    onnx.save(model, out)


def _self_test(file: str, recipe: dict) -> dict[str, list]:
    """The detections in the test image, which another machine must find too."""
    image = pattern_image(*recipe['size'])
    dets, labels = Detector(file).run(np.repeat(image[None], recipe['batch'], axis=0))
    used = labels[0] >= 0
    return dict(
        dets=dets[0][used][:TESTED].astype(float).tolist(),
        labels=labels[0][used][:TESTED].tolist())
