"""Codes of the integer network on the test images: in PyTorch, in the engines, and as trained.

    python tools/benchmarks/integer_codes.py CONFIG CHECKPOINT

Every edge of the graph is compared bit for bit between the twin and each engine: ONNX Runtime with
all optimizations and with none, on one thread and on two, and OpenVINO on as many. Then the codes
that each conv reads are compared with those of the fake-quantized model, as a table in Markdown.
"""
from __future__ import annotations

import argparse
from collections import defaultdict
from itertools import islice
from typing import Any, Callable, Iterator

import numpy as np
import torch
from mmengine.config import DictAction
from mmengine.runner import Runner
from torch import Tensor, nn

from mmaqd.export import IntegerGraph, IntegerNetwork, convert_detector, runtime
from mmaqd.export.graph import Codes
from mmaqd.export.image import integer_mean
from mmaqd.export.onnx import KINDS, prediction_names, to_onnx, with_edges
from mmaqd.layers import QuantConv2d

Run = Callable[[np.ndarray], dict[str, np.ndarray]]


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('config')
    parser.add_argument('checkpoint')
    parser.add_argument('--images', type=int, default=10**6, help='at most so many, by default all')
    parser.add_argument('--engines', nargs='*', default=['onnxruntime', 'openvino'])
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    converted = convert_detector(args.config, args.checkpoint, cfg_options=args.cfg_options)
    graph, detector = converted.graph, converted.detector
    twin, wrong, shares = IntegerNetwork(graph), defaultdict(int), defaultdict(list)
    runs: dict[str, Run] = {}
    count = compared = 0
    for normalized in islice(images(converted.cfg, detector), args.images):
        pixels = to_pixels(detector, normalized)
        runs = runs or dict(engines(graph, pixels.shape[2:], args.engines))
        edges = twin.run(torch.from_numpy(pixels))
        for name, run in runs.items():
            found = run(pixels)
            wrong[name] += sum(differing(graph, edges, found))
            compared = len(found)
        for layer, share in as_trained(graph, detector, normalized, edges).items():
            shares[layer].append(share)
        count += 1
        print(f'\r{count} images', end='', flush=True)
    print(f'\n\n| {count} images, {compared} tensors each | numbers that differ from the twin |')
    print('|---|---|')
    print('\n'.join(f'| {name} | {number} |' for name, number in wrong.items()))
    print('\n| conv | codes of its input that differ from those of the checkpoint |\n|---|---|')
    print('\n'.join(f'| {name} | {100 * np.mean(each):.1f} % |' for name, each in shares.items()))


def images(cfg: Any, detector: nn.Module) -> Iterator[Tensor]:
    """Normalized test images, (1, C, H, W) each."""
    loader = Runner.build_dataloader({**cfg.test_dataloader, 'batch_size': 1})
    for batch in loader:
        yield detector.data_preprocessor(batch, training=False)['inputs']


def to_pixels(detector: nn.Module, normalized: Tensor) -> np.ndarray:
    """The 8-bit image that was normalized; what pads it is the mean."""
    mean = torch.as_tensor(integer_mean(detector, normalized.shape[1])).reshape(1, -1, 1, 1)
    return (normalized + mean).round().to(torch.uint8).numpy()


def engines(graph: IntegerGraph, size: tuple[int, int], names: list[str]) -> Iterator[tuple]:
    """What runs a graph with all its edges, by its name."""
    for name in names:
        model = with_edges(to_onnx(graph, *size, engine=name)).SerializeToString()
        for threads in (1, 2):
            if name == 'openvino':
                yield f'OpenVINO, {threads} threads', in_openvino(model, threads)
                continue
            for level in ('ENABLE_ALL', 'DISABLE_ALL'):
                label = f'ONNX Runtime, ORT_{level}, {threads} threads'
                yield label, in_onnxruntime(model, level, threads)


def in_onnxruntime(model: bytes, level: str, threads: int) -> Run:
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, f'ORT_{level}')
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    session = onnxruntime.InferenceSession(model, options, ['CPUExecutionProvider'])
    names = [each.name for each in session.get_outputs()]
    return lambda pixels: dict(zip(names, session.run(None, {'input': pixels})))


def in_openvino(model: bytes, threads: int) -> Run:
    compiled = runtime.compile_openvino(model, threads)

    def run(pixels: np.ndarray) -> dict[str, np.ndarray]:
        results = compiled({'input': pixels})
        return {name: results[each] for each in compiled.outputs for name in each.get_names()}

    return run


def differing(graph: IntegerGraph, edges: dict[str, Tensor],
              found: dict[str, np.ndarray]) -> Iterator[int]:
    """How many numbers of each tensor that an engine gave are not the twin's."""
    names = {given: edge for edge, given in prediction_names(graph, KINDS).items()}
    expected = stored(graph, edges)
    for given, value in found.items():
        name = names.get(given, given)
        if name in expected:  # and no part of one, such as the padding of one channel
            yield int((value != expected[name]).sum())


def stored(graph: IntegerGraph, edges: dict[str, Tensor]) -> dict[str, np.ndarray]:
    """What an engine should give for each edge: the twin's numbers, codes as they are stored."""
    found = {}
    for name, value in edges.items():
        edge, found[name] = graph.edges[name], value.numpy()
        if isinstance(edge, Codes):
            found[name] = (found[name] - min(edge.qmin, 0)).astype(np.uint8)
    return found


@torch.no_grad()
def as_trained(graph: IntegerGraph, detector: nn.Module, normalized: Tensor,
               edges: dict[str, Tensor]) -> dict[str, float]:
    """Share of the codes each conv reads that are others than in the fake-quantized model."""
    seen: dict[str, list[Tensor]] = defaultdict(list)
    handles = [
        module.register_forward_pre_hook(lambda layer, args, name=name: seen[name].append(
            layer.input_quantizer.quantize(args[0]))) for name, module in detector.named_modules()
        if isinstance(module, QuantConv2d) and module.input_quantizer is not None
    ]
    detector(normalized, mode='tensor')
    for handle in handles:
        handle.remove()
    read = {conv.name: edges[conv.inputs[0]] for conv in graph.convs()}
    return {
        name:
        float(
            np.mean([(codes != read[name if use == 0 else f'{name}[{use}]']).float().mean()
                     for use, codes in enumerate(uses)]))
        for name, uses in seen.items()
    }


if __name__ == '__main__':
    main()
