"""AP of the integer network beside that of its checkpoint, over the bits of its skip connections.

    python tools/benchmarks/integer_accuracy.py CONFIG CHECKPOINT --out DIR

Every row is the twin, evaluated on the config's test data: with streams of 4 to 16 bits, and with
multipliers M of few bits. Prints a table in Markdown and draws a plot.
"""
from __future__ import annotations

import argparse
import os
import os.path as osp
from dataclasses import replace

import numpy as np
import torch.nn as nn
from matplotlib.figure import Figure
from mmengine.config import Config, DictAction
from mmengine.runner import Runner

from mmaqd.export import IntegerGraph, convert_detector, set_graph
from mmaqd.export.convert import integer_config
from mmaqd.export.graph import Conv, Requantization, Requantize
from mmaqd.registry import MODELS


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('config')
    parser.add_argument('checkpoint')
    parser.add_argument('--out', default='work_dirs/integer_accuracy')
    parser.add_argument('--stream-bits', type=int, nargs='*', default=[5, 6, 7, 8, 10, 12, 16])
    parser.add_argument('--multiplier-bits', type=int, nargs='*', default=[2, 3, 4, 6, 8])
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    os.makedirs(args.out, exist_ok=True)
    first = convert_detector(args.config, args.checkpoint, cfg_options=args.cfg_options)
    rows = [('checkpoint', evaluate(first.cfg, first.detector, args.out))]
    for bits in args.stream_bits:
        graph = convert_detector(
            args.config, args.checkpoint, stream_bit_width=bits, cfg_options=args.cfg_options).graph
        rows.append((f'stream {bits}', evaluate(first.cfg, twin(first.cfg, graph), args.out)))
    for bits in args.multiplier_bits:
        graph = with_narrow_multipliers(first.graph, bits)
        rows.append((f'stream 8, M {bits}', evaluate(first.cfg, twin(first.cfg, graph), args.out)))
    print('\n'.join([
        '| | AP | minus checkpoint |', '|---|---|---|',
        *(f'| {name} | {ap:.1f} | {ap - rows[0][1]:+.1f} |' for name, ap in rows)
    ]))
    draw(rows, osp.join(args.out, 'integer_accuracy.png'))


def twin(cfg: Config, graph: IntegerGraph) -> nn.Module:
    return set_graph(MODELS.build(integer_config(cfg.model)), graph)


def evaluate(cfg: Config, model: nn.Module, folder: str) -> float:
    """Box AP in percent on the test data."""
    runner = Runner(
        model=model,
        work_dir=folder,
        test_dataloader=cfg.test_dataloader,
        test_cfg=cfg.test_cfg,
        test_evaluator=cfg.test_evaluator,
        default_scope=cfg.get('default_scope', 'mmdet'),
        experiment_name=f'twin{len(os.listdir(folder))}')
    return 100 * runner.test()['coco/bbox_mAP']


def with_narrow_multipliers(graph: IntegerGraph, bits: int) -> IntegerGraph:
    """The graph with every M rounded to so many bits."""
    nodes = tuple(
        replace(node, requantization=narrow(node.requantization, bits))
        if isinstance(node, (Conv, Requantize)) and node.requantization is not None else node
        for node in graph.nodes)
    return replace(graph, nodes=nodes)


def narrow(requantization: Requantization, bits: int) -> Requantization:
    surplus = np.floor(np.log2(requantization.multiplier)).astype(np.int64) + 1 - bits
    surplus = np.clip(surplus, 0, requantization.shift - 1)
    multiplier = np.round(np.ldexp(requantization.multiplier.astype(float), -surplus))
    return Requantization(multiplier.astype(np.int64), requantization.shift - surplus)


def draw(rows: list[tuple[str, float]], path: str) -> None:
    figure = Figure(figsize=(7, 3), layout='constrained')
    panels = figure.subplots(1, 2, sharey=True)
    for panel, start, label in ((panels[0], 'stream ', 'bits of skip connections'),
                                (panels[1], 'stream 8, M ', 'bits of M')):
        points = [(int(name.removeprefix(start)), ap) for name, ap in rows
                  if name.removeprefix(start).isdigit()]  # yapf: disable
        panel.axhline(rows[0][1], color='tab:gray', linestyle='--', label='checkpoint')
        panel.plot(*zip(*points), marker='o', label='integer network')
        panel.set(xlabel=label)
        panel.grid(alpha=0.3)
    panels[0].set(ylabel='AP')
    panels[0].legend()
    figure.savefig(path, dpi=120)


if __name__ == '__main__':
    main()
