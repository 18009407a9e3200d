"""Data that is generated rather than downloaded."""
from .shapes import IMAGE_SIZE, ShapesSpec, ensure_shapes, find_shapes

__all__ = ['IMAGE_SIZE', 'ShapesSpec', 'ensure_shapes', 'find_shapes']
