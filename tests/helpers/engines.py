"""Runs ONNX models in the engines."""
from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmaqd.export import runtime
from mmaqd.export.graph import IntegerGraph
from mmaqd.export.network import IntegerNetwork
from tools.benchmarks import integer_codes

ENGINES = ('onnxruntime', 'openvino')


def need(*packages: str) -> None:
    """Skip a test where one of the packages is missing."""
    for package in packages:
        pytest.importorskip(package, reason=f'{package} is not installed')


def run_onnxruntime(model: Any,
                    image: np.ndarray,
                    optimized: bool = True,
                    threads: int = 1,
                    save: Path | None = None) -> dict[str, np.ndarray]:
    """Outputs by name; the optimized model is saved to ``save``."""
    import onnxruntime
    options = onnxruntime.SessionOptions()
    level = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimized else level.ORT_DISABLE_ALL
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    if save is not None:
        options.optimized_model_filepath = str(save)
    session = onnxruntime.InferenceSession(model.SerializeToString(), options,
                                           ['CPUExecutionProvider'])
    names = [each.name for each in session.get_outputs()]
    return dict(zip(names, session.run(None, {'input': image})))


def compile_openvino(model: Any, threads: int = 1) -> Any:
    """A model compiled for the CPU."""
    return runtime.compile_openvino(model.SerializeToString(), threads)


def run_openvino(model: Any, image: np.ndarray, threads: int = 1) -> dict[str, np.ndarray]:
    """Outputs by name."""
    return integer_codes.in_openvino(model.SerializeToString(), threads)(image)


def run_engine(engine: str, model: Any, image: np.ndarray, **options: Any) -> dict[str, np.ndarray]:
    """Outputs by name, in an engine by name."""
    run = run_onnxruntime if engine == 'onnxruntime' else run_openvino
    return run(model, image, **options)


def runtime_operators(compiled: Any) -> Counter:
    """How often OpenVINO runs each pair of an operator and the precision it computes in."""
    found: Counter = Counter()
    for node in compiled.get_runtime_model().get_ordered_ops():
        info = node.get_rt_info()
        found[tuple(info[key].astype(str) for key in ('layerType', 'runtimePrecision'))] += 1
    return found


def reference(graph: IntegerGraph, image: np.ndarray) -> dict[str, np.ndarray]:
    """What a model should give for each edge, by the twin."""
    return integer_codes.stored(graph, IntegerNetwork(graph).run(torch.from_numpy(image)))


def assert_same(graph: IntegerGraph, found: dict[str, np.ndarray],
                expected: dict[str, np.ndarray]) -> None:
    """All tensors that a model gave and the twin knows are the same, bit for bit."""
    kinds = ('cls_score', 'bbox_pred', 'centerness')
    edges = {
        f'{kind}.{level}': name
        for kind, names in zip(kinds, graph.outputs)
        for level, name in enumerate(names)
    }
    assert set(edges) <= set(found)
    for name, value in found.items():
        name = edges.get(name, name)
        if name in expected:
            np.testing.assert_array_equal(value, expected[name], err_msg=name)
