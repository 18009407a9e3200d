"""Batches of random integer images with objects, as a data loader gives them."""
from __future__ import annotations

import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.structures import InstanceData, PixelData

# Boxes as shares of the image (left, top, right, bottom): one for each of the usual scales.
_BOXES = ((.1, .1, .2, .22), (.3, .2, .6, .45), (.05, .1, .95, .9), (.5, .55, .7, .85))


def random_batch(size: int,
                 channels: int = 3,
                 num_classes: int = 1,
                 num_images: int = 2,
                 seed: int = 0,
                 with_masks: bool = True) -> dict:
    """Images of noise, each with boxes of several sizes.

    Args:
        size: Height and width in pixels.
        channels: Channels of the images.
        num_classes: Labels are below it.
        num_images: Images in the batch.
        seed: Of the random numbers.
        with_masks: Give each object a mask, and each image a semantic map.

    Returns:
        ``inputs``, (channels, size, size) in uint8 each, and ``data_samples``.
    """
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(
        0, 256, (num_images, channels, size, size), generator=generator, dtype=torch.uint8)
    samples = [_sample(size, num_classes, index, with_masks) for index in range(num_images)]
    return dict(inputs=list(images), data_samples=samples)


def _sample(size: int, num_classes: int, index: int, with_masks: bool) -> DetDataSample:
    shape = (size, size)
    sample = DetDataSample(
        metainfo=dict(
            img_id=index,
            img_path='random.png',
            img_shape=shape,
            ori_shape=shape,
            scale_factor=(1.0, 1.0),
            border=(0.0, float(size), 0.0, float(size)),  # what CenterNet's pipeline adds
            flip=False,
            flip_direction=None))
    boxes = (torch.tensor(_BOXES) * size).round()
    labels = torch.arange(len(boxes)) % num_classes
    sample.gt_instances = InstanceData(bboxes=boxes, labels=labels)
    sample.ignored_instances = InstanceData(bboxes=boxes[:0], labels=labels[:0])
    if with_masks:
        masks = _masks(boxes, size)
        sample.gt_instances.masks = BitmapMasks(masks, *shape)
        sample.ignored_instances.masks = BitmapMasks(masks[:0], *shape)
        sample.gt_sem_seg = PixelData(sem_seg=torch.zeros(1, *shape, dtype=torch.long))
    return sample


def _masks(boxes: torch.Tensor, size: int) -> np.ndarray:
    masks = np.zeros((len(boxes), size, size), np.uint8)
    for mask, (left, top, right, bottom) in zip(masks, boxes.int().tolist()):
        mask[top:bottom, left:right] = 1
    return masks
