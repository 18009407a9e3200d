"""Python time of one quantized conv, forward and backward, on a tiny tensor.

    python tools/benchmarks/conv_overhead.py --against ../before

Each round times the layer and then its operators alone, replayed one after another; the rest is
Python, ours and that of autograd. With ``--against`` the rounds alternate with those of another
checkout, in a process of its own, so that a machine whose speed drifts drifts under both.
"""
from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable

ROOT = Path(__file__).resolve().parents[2]
CALLS = 100


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--against', help='another checkout of mmaqd to compare with')
    parser.add_argument('--rounds', type=int, default=15)
    parser.add_argument('--serve', action='store_true', help=argparse.SUPPRESS)
    return parser.parse_args()


def make_cases() -> dict[str, tuple[Callable, Callable]]:
    """For each case what is timed, and its operators."""
    import torch

    from mmaqd.layers import QuantConv2d
    torch.manual_seed(0)
    torch.set_num_threads(1)
    quantizers = dict(
        weight_quantizer=dict(type='mmaqd.LIQWeightQuantizer', bit_width=4, start='constant'),
        input_quantizer=dict(type='mmaqd.LIQActivationQuantizer', bit_width=4, start='constant'))
    x = torch.rand(1, 4, 4, 4)
    cases = {}
    for name, options in (('float', {}), ('4 bits', quantizers)):
        conv = QuantConv2d(4, 4, 3, padding=1, bias=False, **options)
        cases[name] = _case(conv, x)
    return cases


def _case(conv: Any, x: Any) -> tuple[Callable, Callable]:
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    x, parameters = x.clone().requires_grad_(), list(conv.parameters())
    grad = torch.ones_like(conv(x))
    tape = []

    class Record(TorchDispatchMode):

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            tape.append((function, args, kwargs or {}))
            return result

    def run() -> None:
        torch.autograd.grad(conv(x), (x, *parameters), grad)

    @torch.no_grad()
    def replay() -> None:
        for function, args, kwargs in tape:
            function(*args, **kwargs)

    run()
    with Record():
        run()
    return run, replay


def microseconds(function: Callable) -> float:
    start = time.process_time()  # of a busy machine only what was for us
    for _ in range(CALLS):
        function()
    return 1e6 * (time.process_time() - start) / CALLS


def serve() -> None:
    """Answer each line of the input by the figures of a round."""
    cases = make_cases()
    for _ in sys.stdin:
        figures = {name: [microseconds(each) for each in case] for name, case in cases.items()}
        print(json.dumps(figures), flush=True)


class Checkout:
    """A process that measures the package of one checkout."""

    def __init__(self, root: Path) -> None:
        self.process = subprocess.Popen([sys.executable, __file__, '--serve'],
                                        stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE,
                                        text=True,
                                        env={
                                            **os.environ, 'PYTHONPATH': str(root)
                                        })

    def round(self) -> dict[str, list[float]]:
        self.process.stdin.write('\n')
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def main() -> None:
    args = parse_args()
    if args.serve:
        serve()
        return
    roots = {'here': ROOT}
    if args.against:
        roots = {'before': Path(args.against).resolve(), **roots}
    checkouts = {name: Checkout(root) for name, root in roots.items()}
    rounds: dict[str, list] = {name: [] for name in roots}
    for _ in range(args.rounds + 1):
        for name, checkout in checkouts.items():
            rounds[name].append(checkout.round())
    for checkout in checkouts.values():
        checkout.close()
    print('| checkout | conv | forward and backward, us | its operators alone | Python |')
    print('|---|---|---|---|---|')
    for name, figures in rounds.items():
        for case in figures[0]:
            # The first round warms up, and what else disturbs a round makes it longer.
            total, operators = (
                min(figure[case][part] for figure in figures[1:]) for part in (0, 1))
            print(f'| {name} | {case} | {total:.0f} | {operators:.0f} | {total - operators:.0f} |')


if __name__ == '__main__':
    main()
