"""Where the time of a low-bit training step goes: convs, quantizing, all else.

    python tools/benchmarks/cost_profile.py configs/bccd/retinanet_r18_fpn_mlbn_1xb8-12e_bccd.py \
        configs/bccd/retinanet_r18_fpn_mlbn-w4a4_1xb2-6e_bccd.py

Takes the arguments of training_cost.py. Times are those of the calls, so on a GPU they would be
those of launching them; use torch's profiler there.
"""
from __future__ import annotations

import time
from collections import defaultdict
from functools import wraps
from typing import Callable, DefaultDict

from training_cost import Trainee, parse_args

from mmaqd.functional import ConvGeometry, FakeQuantizeKernel

STEPS = 5
Times = DefaultDict[str, float]


def time_calls(owner: type, method: str, times: Times, name: Callable[[object], str]) -> None:
    """Let each call of a method add its seconds to ``times``."""
    original = getattr(owner, method)

    @wraps(original)
    def timed(self, *args, **kwargs):
        start = time.perf_counter()
        result = original(self, *args, **kwargs)
        times[f'{name(self)}, {method}'] += time.perf_counter() - start
        return result

    setattr(owner, method, timed)


def main() -> None:
    args = parse_args()
    trainee = Trainee(args, 'mmaqd')
    for _ in range(2):
        trainee.step()
    times: Times = defaultdict(float)
    for method in ('forward', 'backward'):
        time_calls(ConvGeometry, method, times, lambda _: 'convs')
        time_calls(FakeQuantizeKernel, method, times, lambda kernel: type(kernel).__name__)
    total = sum(trainee.seconds() for _ in range(STEPS))
    times['all else (BN, ReLU, losses, optimizer, Python)'] = total - sum(times.values())
    print('| part | ms a step | % |\n|---|---|---|')
    for part, seconds in sorted(times.items(), key=lambda item: -item[1]):
        print(f'| {part} | {1e3 * seconds / STEPS:.0f} | {100 * seconds / total:.1f} |')


if __name__ == '__main__':
    main()
