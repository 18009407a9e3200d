"""Registries of mmaqd: one child, with scope ``mmaqd``, of every registry of MMDetection.

A type that is written without a scope falls through to MMDetection and MMEngine; a type of ours is
reached from anywhere as ``mmaqd.X``.
"""
from mmdet import registry as _mmdet
from mmengine.registry import FUNCTIONS as _MMENGINE_FUNCTIONS
from mmengine.registry import Registry

_LOCATIONS = ['mmaqd']


def _child_of(parent: Registry) -> Registry:
    child = Registry(parent.name, parent=parent, scope='mmaqd', locations=_LOCATIONS)
    root = parent
    while root.parent is not None:
        root = root.parent
    if root is not parent:
        # Code that asks the root registry without a default scope (mmcv's build_norm_layer does)
        # sees direct children only.
        root._add_child(child)
    return child


MODELS = _child_of(_mmdet.MODELS)
WEIGHT_INITIALIZERS = _child_of(_mmdet.WEIGHT_INITIALIZERS)
HOOKS = _child_of(_mmdet.HOOKS)
LOOPS = _child_of(_mmdet.LOOPS)
OPTIM_WRAPPER_CONSTRUCTORS = _child_of(_mmdet.OPTIM_WRAPPER_CONSTRUCTORS)
DATASETS = _child_of(_mmdet.DATASETS)
TRANSFORMS = _child_of(_mmdet.TRANSFORMS)
METRICS = _child_of(_mmdet.METRICS)
VISUALIZERS = _child_of(_mmdet.VISUALIZERS)
FUNCTIONS = _child_of(_MMENGINE_FUNCTIONS)

# Quantizers have no counterpart upstream.
QUANTIZERS = Registry('quantizer', scope='mmaqd', locations=_LOCATIONS)
