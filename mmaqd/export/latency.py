"""Latencies of ONNX files in the engines, measured in turn so that all drift with the machine."""
from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Mapping, Sequence

import numpy as np

from .onnx.builder import MissingPackage
from .runtime import DetectError, compile_openvino, import_engine

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
            shape: Sequence[int] | None = None,
            threads: int = 1,
            rounds: int = 20) -> list[Latency]:
    """Run files in turn, round by round.

    Args:
        files: Path of a file by its name and the engine that runs it.
        shape: Of the input, (N, C, H, W); None for that of each file.
        threads: Of each engine.
        rounds: Measurements of each file; one more is not counted.

    Raises:
        FileNotFoundError: There is no such file.
        MissingPackage: An engine is not installed.
        ValueError: A file is no ONNX file, or takes no input of that shape.
    """
    runs = {key: load(key[1], path, threads) for key, path in files.items()}
    pixels = {key: _pixels(files[key], run.shape, shape) for key, run in runs.items()}
    times: dict[tuple[str, str], list[float]] = {key: [] for key in runs}
    for _ in range(rounds + 1):
        for key, run in runs.items():
            start = time.perf_counter()
            run(pixels[key])
            times[key].append(1e3 * (time.perf_counter() - start))
    return [Latency(*key, tuple(each[1:])) for key, each in times.items()]


def load(engine: str, path: str, threads: int = 1, **options: Any) -> Run:
    """A function that runs a file, with the ``shape`` of its input, None for a size that is free.

    Raises:
        FileNotFoundError: There is no such file.
        MissingPackage: The engine is not installed.
        ValueError: It is unknown, or can't read the file.
    """
    loaders = {'onnxruntime': _load_onnxruntime, 'openvino': _load_openvino}
    if engine not in loaders:
        raise ValueError(f'{engine!r} is no engine; there are {", ".join(ENGINES)}.')
    if not Path(path).is_file():
        raise FileNotFoundError(f'{path!r} does not exist: tools/deployment/export.py writes it.')
    try:
        return loaders[engine](path, threads, **options)
    except MissingPackage:
        raise
    except Exception as error:  # of the engines' own kinds
        raise ValueError(f'{path!r} is no ONNX file that {engine} can run: {error}') from error


def profile(engine: str,
            path: str,
            shape: Sequence[int] | None = None,
            threads: int = 1,
            runs: int = 5) -> list[tuple[str, float, float]]:
    """Operators, milliseconds of one run, and their share, the slowest first.

    Args and errors are those of :func:`measure`.
    """
    profiler = {'onnxruntime': _profile_onnxruntime, 'openvino': _profile_openvino}[engine]
    spent = profiler(path, shape, threads, runs)
    total = sum(spent.values())
    rows = sorted(spent.items(), key=lambda item: -item[1])
    return [(operator, each / runs, each / total) for operator, each in rows]


def _pixels(path: str, own: Sequence[int | None], asked: Sequence[int] | None) -> np.ndarray:
    """An image of the shape that is asked for, or of a file's own."""
    shape = own if asked is None else asked
    if None in shape:
        raise ValueError(f'{path!r} takes images of any size; say which: --shape N C H W.')
    if len(own) != len(shape) or any(a not in (None, b) for a, b in zip(own, shape)):
        sizes = ' x '.join('any' if each is None else str(each) for each in own)
        raise ValueError(f'{path!r} takes an input of {sizes}, but --shape says '
                         f'{" x ".join(map(str, shape))}. Leave --shape out to take its own.')
    return np.random.default_rng(0).integers(0, 256, shape)


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
    run.shape = [each if isinstance(each, int) else None for each in given.shape]
    return run


def _load_openvino(path: str, threads: int, counters: bool = False) -> Run:
    try:
        import_engine('openvino')
    except DetectError as error:
        raise MissingPackage("openvino is not installed: pip install 'mmaqd[openvino]'.") from error
    request = compile_openvino(path, threads, PERF_COUNT=counters).create_infer_request()
    dtype = np.uint8 if request.model_inputs[0].element_type.size == 1 else np.float32

    def run(pixels: np.ndarray) -> object:
        return request.infer([pixels.astype(dtype)])

    run.request = request
    run.shape = [
        each.get_length() if each.is_static else None
        for each in request.model_inputs[0].partial_shape
    ]
    return run


def _profile_onnxruntime(path: str, shape: Sequence[int] | None, threads: int,
                         runs: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as directory:
        run = load('onnxruntime', path, threads, trace=os.path.join(directory, 'trace'))
        pixels = _pixels(path, run.shape, shape)
        for _ in range(runs):
            run(pixels)
        events = json.loads(Path(run.session.end_profiling()).read_text())
    spent: dict[str, float] = {}
    for event in events:
        if event.get('cat') == 'Node' and event['name'].endswith('_kernel_time'):
            operator = event['args']['op_name']
            spent[operator] = spent.get(operator, 0.0) + event['dur'] / 1e3
    return spent


def _profile_openvino(path: str, shape: Sequence[int] | None, threads: int,
                      runs: int) -> dict[str, float]:
    run, spent = load('openvino', path, threads, counters=True), {}
    pixels = _pixels(path, run.shape, shape)
    for _ in range(runs):
        run(pixels)
        for each in run.request.profiling_info:
            if each.real_time.total_seconds():
                key = f'{each.node_type} ({each.exec_type})'
                spent[key] = spent.get(key, 0.0) + 1e3 * each.real_time.total_seconds()
    return spent
