"""Detections of a checkpoint in images, drawn: a look at a model without annotated data."""
from __future__ import annotations

from pathlib import Path

from mmdet.apis import DetInferencer
from mmengine.device import get_device


def detect_images(config: str,
                  checkpoint: str,
                  images: str,
                  out: str,
                  score_threshold: float = 0.3,
                  device: str | None = None) -> list[dict]:
    """Detect objects in an image or a folder of images and draw them.

    A low-bit checkpoint is simulated: it gives the detections of its integers' grid, computed in
    float, and is no faster than the float model.

    Args:
        config: Path of the config.
        checkpoint: Its checkpoint; a packed one too.
        images: An image, or a folder of them.
        out: Folder for the drawn images, which go to ``vis/`` in it, and for the detections of each
            in ``preds/``, as JSON.
        score_threshold: Lowest score that is drawn, in [0, 1].
        device: Such as ``'cuda:1'``; None for a GPU if there is one.

    Returns:
        For each image ``labels``, ``scores`` and ``bboxes`` (x1, y1, x2, y2 in pixels of the
        image), best first, whatever the threshold is.

    Raises:
        FileNotFoundError: ``images`` does not exist.
        ValueError: The threshold is outside of [0, 1].
    """
    if not Path(images).exists():
        raise FileNotFoundError(f'{images!r} does not exist: expected an image or a folder.')
    if not 0 <= score_threshold <= 1:
        raise ValueError(f'The score threshold must be in [0, 1], but got {score_threshold}.')
    detect = DetInferencer(config, checkpoint, device=device or get_device(), show_progress=False)
    found = detect(images, out_dir=out, pred_score_thr=score_threshold, no_save_pred=False)
    return found['predictions']
