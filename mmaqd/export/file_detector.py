"""The config type by which an exported file is evaluated like any detector."""
from __future__ import annotations

from typing import Any, Iterator

import numpy as np
import torch
from mmdet.models.detectors.base import BaseDetector
from mmdet.structures import SampleList
from mmengine.structures import InstanceData
from torch import Tensor

from mmaqd.registry import MODELS

from .image import integer_mean
from .runtime import Detector


@MODELS.register_module()
class FileDetector(BaseDetector):
    """Predicts with a file that tools/deployment/export.py wrote.

    Args:
        file: The ONNX file.
        engine: ``'onnxruntime'`` or ``'openvino'``; None for the one that it was written for.
        data_preprocessor: That of the config that the file was made of.

    Raises:
        DetectError: The file is none of ours, or the engine can't load it.
    """

    def __init__(self,
                 file: str,
                 engine: str | None = None,
                 data_preprocessor: dict | None = None) -> None:
        super().__init__(data_preprocessor)
        self.detector = Detector(file, engine)
        mean = torch.from_numpy(integer_mean(self))
        self.register_buffer('mean', mean.view(1, -1, 1, 1), persistent=False)

    def predict(self,
                batch_inputs: Tensor,
                batch_data_samples: SampleList,
                rescale: bool = True) -> SampleList:
        """Detections of normalized images (N, 3, H, W), no larger than the file's input."""
        images = (batch_inputs + self.mean).round().clamp(0, 255).byte().cpu().numpy()
        found = [
            _instances(dets, labels, sample.metainfo, rescale)
            for (dets, labels), sample in zip(self._run(images), batch_data_samples)
        ]
        return self.add_pred_to_datasample(batch_data_samples, found)

    def _run(self, images: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """dets and labels of each image, in batches of the file."""
        recipe = self.detector.recipe
        if recipe['dynamic']:
            yield from zip(*self.detector.run(images))
            return
        (height, width), batch = recipe['size'], recipe['batch']
        if images.shape[2] > height or images.shape[3] > width:
            raise ValueError(
                f'An image of {images.shape[2]} x {images.shape[3]} is larger than the input of '
                f'the file, {height} x {width}. Export with --size, or test with a smaller scale.')
        padded = np.empty((-(-len(images) // batch) * batch, images.shape[1], height, width),
                          np.uint8)
        padded[:] = self.mean.cpu().numpy()
        padded[:len(images), :, :images.shape[2], :images.shape[3]] = images
        results = [self.detector.run(padded[at:at + batch]) for at in range(0, len(padded), batch)]
        for dets, labels in results:
            yield from zip(dets, labels)

    def loss(self, *args: Any, **kwargs: Any) -> dict:
        raise RuntimeError('A file can\'t be trained: train the low-bit config and export again.')

    def _forward(self, *args: Any, **kwargs: Any) -> Any:
        raise RuntimeError('A file gives detections only: use mode=\'predict\', or export the '
                           'prediction maps with --raw.')

    def extract_feat(self, batch_inputs: Tensor) -> Any:
        return self._forward()


def _instances(dets: np.ndarray, labels: np.ndarray, meta: dict, rescale: bool) -> InstanceData:
    """What a file found in one image, in the original image with ``rescale``."""
    dets, labels = torch.from_numpy(dets[labels >= 0]), torch.from_numpy(labels[labels >= 0])
    height, width = meta['img_shape'][:2]
    limits = torch.tensor([width, height, width, height])
    boxes = dets[:, :4].clamp(min=0).minimum(limits)
    if rescale:
        boxes = boxes / torch.tensor(meta['scale_factor']).repeat(2)
    return InstanceData(bboxes=boxes.float(), scores=dets[:, 4], labels=labels)
