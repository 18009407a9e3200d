from .backbones import FoldInputStd
from .dense_heads import (AQDATSSHead, AQDFCOSHead, AQDRetinaHead, MultiLevelHead,
                          MultiLevelHeadMixin)
from .detectors import DistillationMixin, distill
from .losses import DistillationLoss, FeatureDistillationLoss, OutputDistillationLoss

__all__ = [
    'AQDATSSHead', 'AQDFCOSHead', 'AQDRetinaHead', 'DistillationLoss', 'DistillationMixin',
    'FeatureDistillationLoss', 'FoldInputStd', 'MultiLevelHead', 'MultiLevelHeadMixin',
    'OutputDistillationLoss', 'distill'
]
