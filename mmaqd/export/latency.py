"""Latencies of ONNX files in the engines, measured in turn so that all drift with the machine."""
from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Mapping, Sequence

import numpy as np

from .onnx.builder import MissingPackage
from .runtime import openvino_options

ENGINES = ('onnxruntime', 'openvino')
Run = Callable[[np.ndarray], object]


@dataclass(frozen=True)
class Latency:
    """Milliseconds of one file in one engine.

    Attributes:
        name: Of the file.
        engine: ``'onnxruntime'`` or ``'openvino'``.
        repeats: One measurement for each round.
    """

    name: str
    engine: str
    repeats: tuple[float, ...]

    @property
    def median(self) -> float:
        """Median of all rounds."""
        return statistics.median(self.repeats)


def measure(files: Mapping[tuple[str, str], str],
            shape: Sequence[int],
            threads: int = 1,
            rounds: int = 20) -> list[Latency]:
    """Run files in turn, round by round.

    Args:
        files: Path of a file by its name and the engine that runs it.
        shape: Of the input, (N, C, H, W).
        threads: Of each engine.
        rounds: Measurements of each file; one more is not counted.

    Raises:
        MissingPackage: An engine is not installed.
    """
    runs = {key: load(key[1], path, threads) for key, path in files.items()}
    pixels = np.random.default_rng(0).integers(0, 256, shape)
    times: dict[tuple[str, str], list[float]] = {key: [] for key in runs}
    for _ in range(rounds + 1):
        for key, run in runs.items():
            start = time.perf_counter()
            run(pixels)
            times[key].append(1e3 * (time.perf_counter() - start))
    return [Latency(*key, tuple(each[1:])) for key, each in times.items()]


def load(engine: str, path: str, threads: int = 1) -> Run:
    """A function that runs a file.

    Raises:
        MissingPackage: The engine is not installed.
        ValueError: It is unknown.
    """
    loaders = {'onnxruntime': _load_onnxruntime, 'openvino': _load_openvino}
    if engine not in loaders:
        raise ValueError(f'{engine!r} is no engine; there are {", ".join(ENGINES)}.')
    return loaders[engine](path, threads)


def profile(engine: str,
            path: str,
            shape: Sequence[int],
            threads: int = 1,
            runs: int = 5) -> list[tuple[str, float, float]]:
    """Operators, milliseconds of one run, and their share, the slowest first."""
    profiler = {'onnxruntime': _profile_onnxruntime, 'openvino': _profile_openvino}[engine]
    pixels = np.random.default_rng(0).integers(0, 256, shape)
    spent = profiler(path, pixels, threads, runs)
    total = sum(spent.values())
    rows = sorted(spent.items(), key=lambda item: -item[1])
    return [(operator, each / runs, each / total) for operator, each in rows]


def _load_onnxruntime(path: str, threads: int, trace: str = '') -> Run:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingPackage(
            "onnxruntime is not installed: pip install 'mmaqd[export]'.") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    if trace:
        options.enable_profiling, options.profile_file_prefix = True, trace
    session = onnxruntime.InferenceSession(path, options, ['CPUExecutionProvider'])
    given = session.get_inputs()[0]
    dtype = np.uint8 if 'uint8' in given.type else np.float32

    def run(pixels: np.ndarray) -> object:
        return session.run(None, {given.name: pixels.astype(dtype)})

    run.session = session
    return run


def _load_openvino(path: str, threads: int, counters: bool = False) -> Run:
    try:
        import openvino
    except ImportError as error:
        raise MissingPackage("openvino is not installed: pip install 'mmaqd[openvino]'.") from error
    core = openvino.Core()
    options = {**openvino_options(threads), 'PERF_COUNT': counters}
    request = core.compile_model(core.read_model(path), 'CPU', options).create_infer_request()
    dtype = np.uint8 if request.model_inputs[0].element_type.size == 1 else np.float32

    def run(pixels: np.ndarray) -> object:
        return request.infer([pixels.astype(dtype)])

    run.request = request
    return run


def _profile_onnxruntime(path: str, pixels: np.ndarray, threads: int,
                         runs: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as directory:
        run = _load_onnxruntime(path, threads, os.path.join(directory, 'trace'))
        for _ in range(runs):
            run(pixels)
        events = json.loads(Path(run.session.end_profiling()).read_text())
    spent: dict[str, float] = {}
    for event in events:
        if event.get('cat') == 'Node' and event['name'].endswith('_kernel_time'):
            operator = event['args']['op_name']
            spent[operator] = spent.get(operator, 0.0) + event['dur'] / 1e3
    return spent


def _profile_openvino(path: str, pixels: np.ndarray, threads: int, runs: int) -> dict[str, float]:
    run, spent = _load_openvino(path, threads, counters=True), {}
    for _ in range(runs):
        run(pixels)
        for each in run.request.profiling_info:
            if each.real_time.total_seconds():
                key = f'{each.node_type} ({each.exec_type})'
                spent[key] = spent.get(key, 0.0) + 1e3 * each.real_time.total_seconds()
    return spent
