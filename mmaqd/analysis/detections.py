"""Draws the ground truth and the detections of several models side by side."""
from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.patches import Rectangle

_GROUND_TRUTH = 'ground truth'


def plot_detections(annotations: str | Path,
                    image_dir: str | Path,
                    results: Mapping[str, str | Path],
                    image_ids: Sequence[int],
                    score_threshold: float = 0.4) -> Figure:
    """Draw a row for each image: the ground truth, then the detections of each model.

    Args:
        annotations: COCO annotation file.
        image_dir: Folder of its images.
        results: COCO result file (``*.bbox.json``) by the title of its
            column.
        image_ids: Images to show, at least one.
        score_threshold: Detections below this score, in [0, 1], are left out.

    Returns:
        To be saved by its ``savefig``.

    Raises:
        ValueError: If ``image_ids`` is empty or names an image that is not annotated.
        FileNotFoundError: If a file is missing.
    """
    coco = json.loads(Path(annotations).read_text())
    files = {image['id']: image['file_name'] for image in coco['images']}
    unknown = sorted(set(image_ids) - set(files))
    if unknown or not image_ids:
        raise ValueError(f'plot_detections: image_ids must be ids of images in {annotations}, got '
                         f'{list(image_ids)}; unknown: {unknown}.')
    columns = {_GROUND_TRUTH: _by_image(coco['annotations'], 0)}
    for title, result in results.items():
        columns[title] = _by_image(json.loads(Path(result).read_text()), score_threshold)
    labels = {category['id']: category['name'] for category in coco['categories']}
    paths = {number: Path(image_dir, files[number]) for number in image_ids}
    return _draw_grid(paths, columns, labels)


def _by_image(boxes: Sequence[dict], score_threshold: float) -> dict[int, list[dict]]:
    """COCO annotations or results with a sufficient score, by image id."""
    found = defaultdict(list)
    for box in boxes:
        if box.get('score', 1) >= score_threshold:
            found[box['image_id']].append(box)
    return found


def _draw_grid(paths: Mapping[int, Path], columns: Mapping[str, dict[int, list[dict]]],
               labels: Mapping[int, str]) -> Figure:
    """One panel for each image (row) and source of boxes (column)."""
    figure = Figure(figsize=(2.8 * len(columns), 2.8 * len(paths)), layout='tight')
    panels = figure.subplots(len(paths), len(columns), squeeze=False)
    for row, (number, image_path) in zip(panels, paths.items()):
        image = imread(image_path)
        for panel, boxes in zip(row, columns.values()):
            panel.imshow(image)
            panel.set_axis_off()
            for box in boxes[number]:
                _draw_box(panel, box, labels[box['category_id']])
    for panel, title in zip(panels[0], columns):
        panel.set_title(title, fontsize=10)
    return figure


def _draw_box(panel: Axes, box: dict, label: str) -> None:
    """Outline with the class, and the score where there is one."""
    x, y, width, height = box['bbox']
    # White on black is seen on any background.
    for colour, line_width in (('black', 2.4), ('white', 1.2)):
        panel.add_patch(
            Rectangle((x, y), width, height, fill=False, edgecolor=colour, linewidth=line_width))
    text = f'{label} {box["score"]:.2f}' if 'score' in box else label
    panel.text(
        x,
        y,
        text,
        fontsize=6,
        color='white',
        va='bottom',
        clip_on=True,
        bbox=dict(facecolor='black', alpha=0.6, pad=0.5, linewidth=0))
