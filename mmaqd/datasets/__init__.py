"""Data that is generated rather than downloaded."""
from mmaqd.datasets.shapes import ShapesSpec, ensure_shapes

__all__ = ['ShapesSpec', 'ensure_shapes']
