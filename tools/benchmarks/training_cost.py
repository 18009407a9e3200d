"""Cost of a low-bit training step against the same step of the float twin, side by side.

    python tools/benchmarks/training_cost.py configs/bccd/retinanet_r18_fpn_mlbn_1xb8-12e_bccd.py \
        configs/bccd/retinanet_r18_fpn_mlbn-w4a4_1xb2-6e_bccd.py --out training_cost.json

Each pair is one step of the float model and one of the other, in turn, so that a machine whose
speed drifts drifts under both. Brevitas is left out where it is not installed.
"""
from __future__ import annotations

import argparse
import gc
import json
import statistics
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import torch.nn as nn
from cost_variants import VARIANTS, build_detector
from matplotlib.figure import Figure
from mmdet.testing import demo_mm_inputs

from mmaqd.quantizers import calibrate

MIB = 2**20


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('float_config')
    parser.add_argument('low_bit_config')
    parser.add_argument('--size', type=int, nargs=2, default=(240, 320), metavar=('H', 'W'))
    parser.add_argument('--batch-size', type=int, default=8)
    parser.add_argument('--pairs', type=int, default=10)
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--autocast', choices=['none', 'bf16', 'fp16'], default='none')
    parser.add_argument('--only', nargs='+', help='rows to measure, by default all')
    parser.add_argument('--out', help='JSON file for the figures')
    parser.add_argument('--plot', help='picture of the figures as bars')
    parser.add_argument('--peak-of', help=argparse.SUPPRESS)
    return parser.parse_args()


class Trainee:
    """A model with its optimizer and a batch, ready to take steps."""

    def __init__(self, args: argparse.Namespace, name: str) -> None:
        torch.manual_seed(0)
        is_float = name == 'float'
        self.device = torch.device(args.device)
        self.bytes_before = self._allocated()
        model = build_detector(args.float_config if is_float else args.low_bit_config)
        model.to(self.device)
        batch = demo_mm_inputs(args.batch_size, [[3, *args.size]] * args.batch_size, num_classes=3)
        if not is_float:
            calibrate(model, [batch])
            model = VARIANTS[name](model)
        self.model = model.train()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=1e-4, momentum=0.9)
        self.data = self.model.data_preprocessor(batch, training=True)
        self.autocast = dict(bf16=torch.bfloat16, fp16=torch.float16).get(args.autocast)
        if self.autocast is not None:
            self.model.bbox_head.register_forward_hook(_to_float32)

    def loss(self) -> torch.Tensor:
        with torch.autocast(self.device.type, self.autocast, enabled=self.autocast is not None):
            losses = self.model(**self.data, mode='loss')
        return self.model.parse_losses(losses)[0]

    def step(self) -> None:
        self.optimizer.zero_grad()
        self.loss().backward()
        self.optimizer.step()

    def seconds(self) -> float:
        self._synchronize()
        start = time.perf_counter()
        self.step()
        self._synchronize()
        return time.perf_counter() - start

    def peak_bytes_on_gpu(self) -> int:
        """Peak of what two steps have allocated, model, optimizer and batch included."""
        torch.cuda.reset_peak_memory_stats()
        for _ in range(2):
            self.step()
        return torch.cuda.max_memory_allocated() - self.bytes_before

    def saved_bytes(self) -> int:
        """Bytes kept for the backward pass, parameters and the batch not counted."""
        own = {
            tensor.untyped_storage().data_ptr()
            for tensor in [*self.model.parameters(), *self.model.buffers()]
        }
        own.add(self.data['inputs'].untyped_storage().data_ptr())
        kept: dict[int, int] = {}

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = self.loss()
        total = sum(kept.values())
        loss.backward()
        return total

    def _synchronize(self) -> None:
        if self.device.type == 'cuda':
            torch.cuda.synchronize()

    def _allocated(self) -> int:
        gc.collect()  # the model of the row before
        return torch.cuda.memory_allocated() if self.device.type == 'cuda' else 0


def _to_float32(_: nn.Module, __: Any, outputs: tuple) -> tuple:
    """What a head gives under autocast, for the losses: mmcv's focal loss has no bfloat16."""
    return tuple([level.float() for level in levels] for levels in outputs)


def peak_bytes(trainee: Trainee, name: str) -> int:
    """Peak memory of two steps; on a CPU in a process of its own, beyond that of building."""
    if trainee.device.type == 'cuda':
        return trainee.peak_bytes_on_gpu()
    command = [sys.executable, *sys.argv, '--peak-of', name]
    process = subprocess.run(command, check=True, capture_output=True, text=True)
    return int(process.stdout.split()[-1])


def print_peak(args: argparse.Namespace) -> None:
    trainee = Trainee(args, args.peak_of)
    Path('/proc/self/clear_refs').write_text('5')  # forget the peak of building the model
    before = _status_bytes('VmRSS')
    for _ in range(2):
        trainee.step()
    print(_status_bytes('VmHWM') - before)


def _status_bytes(field: str) -> int:
    for line in Path('/proc/self/status').read_text().splitlines():
        if line.startswith(f'{field}:'):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f'/proc/self/status has no {field}; peak memory on a CPU needs Linux.')


def measure(args: argparse.Namespace, name: str, twin: Trainee) -> dict[str, Any]:
    trainee = Trainee(args, name)
    for warm_up in (twin, trainee):
        warm_up.step()
    ratios, seconds = [], []
    for _ in range(args.pairs):
        base = twin.seconds()
        seconds.append(trainee.seconds())
        ratios.append(seconds[-1] / base)
    ratios.sort()
    return dict(
        name=name,
        seconds=statistics.median(seconds),
        step_ratio=statistics.median(ratios),
        spread=(ratios[0], ratios[-1]),
        saved=trainee.saved_bytes(),
        peak=peak_bytes(trainee, name))


def table(rows: list[dict[str, Any]], saved: int, peak: int) -> str:
    lines = [
        '| model | step / float (min to max) | s/step | saved for backward / float | '
        'peak memory / float |', '|---|---|---|---|---|'
    ]
    for row in rows:
        low, high = row['spread']
        lines.append(
            f'| {row["name"]} | {row["step_ratio"]:.2f} ({low:.2f} to {high:.2f}) | '
            f'{row["seconds"]:.2f} | {row["saved"] / saved:.2f} ({row["saved"] / MIB:.0f} MiB) | '
            f'{row["peak"] / peak:.2f} ({row["peak"] / MIB:.0f} MiB) |')
    return '\n'.join(lines)


def plot(rows: list[dict[str, Any]], saved: int, peak: int) -> Figure:
    """Bars of each row's figures as ratios to the float twin, which is the line at 1."""
    figure = Figure(figsize=(9, 3.2), layout='tight')
    names = [row['name'] for row in rows]
    ratios = {
        'time of a step': [row['step_ratio'] for row in rows],
        'bytes saved for backward': [row['saved'] / saved for row in rows],
        'peak memory': [row['peak'] / peak for row in rows],
    }
    panels = figure.subplots(1, len(ratios), sharey=True)
    for panel, (title, bars) in zip(panels, ratios.items()):
        panel.bar_label(panel.barh(names, bars, color='tab:blue'), fmt='%.2f', padding=2)
        panel.axvline(1, color='black', linewidth=0.8)
        panel.set_title(f'{title} / float', fontsize=10)
        panel.set_xlim(0, 1.25 * max(bars))  # room for the labels
        panel.invert_yaxis()
    return figure


def main() -> None:
    args = parse_args()
    if args.peak_of:
        print_peak(args)
        return
    names = args.only or [name for name in VARIANTS if name != 'brevitas' or find_spec('brevitas')]
    twin = Trainee(args, 'float')
    saved, peak = twin.saved_bytes(), peak_bytes(twin, 'float')
    rows = []
    for name in names:
        rows.append(measure(args, name, twin))
        print(table(rows, saved, peak), flush=True)
    if args.plot:
        plot(rows, saved, peak).savefig(args.plot, dpi=120)
    if args.out:
        with open(args.out, 'w') as file:
            json.dump(
                dict(
                    arguments=vars(args),
                    torch=torch.__version__,
                    float_saved=saved,
                    float_peak=peak,
                    rows=rows),
                file,
                indent=2)


if __name__ == '__main__':
    main()
