"""Draws textured backgrounds and filled shapes on images; knows nothing of files or annotations.

Images are uint8 arrays of shape (height, width, 3) in BGR order, coordinates are pixels with the
origin at the outer corner of the first pixel.
"""
from __future__ import annotations

import cv2
import numpy as np

CLASSES = ('circle', 'square', 'triangle', 'star', 'cross')

_SUBPIXEL_BITS = 4
_MIN_CONTRAST = 110.0


def unit_polygon(name: str) -> np.ndarray:
    """Outline of a shape around the origin, before it is turned and scaled.

    Args:
        name: One of :data:`CLASSES`.

    Returns:
        Vertices (num_vertices, 2), float64, within [-1, 1].

    Raises:
        KeyError: If ``name`` is not one of :data:`CLASSES`.
    """
    arm = 0.36
    quarter = [(arm, -1), (arm, -arm), (1, -arm)]
    cross = [point for turn in range(4) for point in _quarter_turns(quarter, turn)]
    outlines = {
        'circle': _radial(np.ones(48)),
        'square': np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]),
        'triangle': np.array([(0, -1), (1, 1), (-1, 1)]),
        'star': _radial(np.tile([1.0, 0.45], 5)),
        'cross': np.array(cross),
    }
    return outlines[name].astype(np.float64)


def shape_polygon(name: str, size: float, aspect: float, angle: float) -> np.ndarray:
    """Outline of a shape whose bounding box starts at (0, 0) and whose longer side is ``size``.

    Args:
        name: One of :data:`CLASSES`.
        size: Longer side of the bounding box, in pixels.
        aspect: Width over height before the shape is turned, > 0.
        angle: Turn in radians.

    Returns:
        Vertices (num_vertices, 2), float64, in pixels.
    """
    polygon = unit_polygon(name) * [np.sqrt(aspect), 1 / np.sqrt(aspect)]
    cos, sin = np.cos(angle), np.sin(angle)
    polygon = polygon @ np.array([[cos, sin], [-sin, cos]])
    polygon = polygon - polygon.min(axis=0)
    return polygon * (size / polygon.max())


def textured_background(size: int, rng: np.random.Generator) -> np.ndarray:
    """Random background: soft coloured blobs, a stripe pattern and fine noise.

    Args:
        size: Side of the square image, in pixels.
        rng: Source of randomness.

    Returns:
        Image (size, size, 3), uint8.
    """
    base = rng.uniform(50, 200) + rng.uniform(-20, 20, 3)
    image = np.broadcast_to(base.astype(np.float32), (size, size, 3)).copy()
    for cells, strength in ((4, 16.0), (16, 8.0)):
        blobs = rng.normal(0, strength, (cells, cells, 3)).astype(np.float32)
        image += cv2.resize(blobs, (size, size), interpolation=cv2.INTER_CUBIC)
    rows, columns = np.mgrid[:size, :size].astype(np.float32)
    direction = rng.uniform(0, np.pi)
    phase = (columns * np.cos(direction) + rows * np.sin(direction)) / rng.uniform(2, 12)
    image += rng.uniform(0, 12) * np.sin(phase)[..., None]
    image += 5 * rng.standard_normal(image.shape, np.float32)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def draw_shape(image: np.ndarray, polygon: np.ndarray, rng: np.random.Generator) -> None:
    """Fill a polygon, in place, with a colour that stands out from what lies under it.

    Args:
        image: uint8 image of shape (height, width, 3).
        polygon: Vertices of shape (num_vertices, 2), in pixels, inside the image.
        rng: Source of randomness.
    """
    # Only the patch around the shape is touched: most shapes are small.
    top_left = np.floor(polygon.min(axis=0)).astype(int)
    right, bottom = np.ceil(polygon.max(axis=0)).astype(int)
    patch = image[top_left[1]:bottom, top_left[0]:right]
    mask = np.zeros(patch.shape[:2], np.uint8)
    # OpenCV's pixel (0, 0) is the centre of the first pixel, ours is its outer corner.
    vertices = np.rint((polygon - top_left - 0.5) * 2**_SUBPIXEL_BITS).astype(np.int32)
    cv2.fillPoly(mask, [vertices], 255, cv2.LINE_AA, _SUBPIXEL_BITS)
    alpha = mask[..., None].astype(np.float32) / 255
    under = patch[mask > 127].mean(axis=0)
    colour = rng.uniform(0, 255, 3)
    while np.linalg.norm(colour - under) < _MIN_CONTRAST:
        colour = rng.uniform(0, 255, 3)
    paint = colour + 8 * rng.standard_normal(patch.shape, np.float32)
    patch[:] = np.clip(np.rint(alpha * paint + (1 - alpha) * patch), 0, 255).astype(np.uint8)


def _radial(radii: np.ndarray) -> np.ndarray:
    """Vertices at equal angles, the first one pointing up."""
    angles = np.arange(len(radii)) * 2 * np.pi / len(radii) - np.pi / 2
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)


def _quarter_turns(points: list, turns: int) -> list:
    """Points turned by ``turns`` times 90 degrees."""
    for _ in range(turns):
        points = [(-y, x) for x, y in points]
    return points
