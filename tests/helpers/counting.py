"""Counts how often kernels quantize a tensor."""
from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from mmaqd.functional import FakeQuantizeKernel


class _Counting:
    """What a kernel gives for one tensor, counted."""

    def __init__(self, bound: Any, counted: Counter, name: str) -> None:
        self.bound, self.counted, self.name = bound, counted, name

    def fake_quantize(self, *args: Any, **kwargs: Any) -> Any:
        self.counted[self.name] += 1
        return self.bound.fake_quantize(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.bound, name)


def count_quantizations(monkeypatch: pytest.MonkeyPatch, *kernels:
                        type[FakeQuantizeKernel]) -> Counter:
    """How often each kernel fake-quantized a tensor from now on, by the name of its class."""
    counted: Counter = Counter()
    for kernel in kernels:

        def bind(self, *args: Any, _original: Any = kernel.bind) -> _Counting:
            return _Counting(_original(self, *args), counted, type(self).__name__)

        monkeypatch.setattr(kernel, 'bind', bind)
    return counted
