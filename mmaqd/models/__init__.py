from .backbones import FoldInputStd
from .dense_heads import AQDATSSHead, AQDFCOSHead, AQDRetinaHead, MultiLevelHeadMixin
from .detectors import DistillationMixin, distill
from .losses import DistillationLoss, FeatureDistillationLoss, OutputDistillationLoss

__all__ = [
    'AQDATSSHead', 'AQDFCOSHead', 'AQDRetinaHead', 'DistillationLoss', 'DistillationMixin',
    'FeatureDistillationLoss', 'FoldInputStd', 'MultiLevelHeadMixin', 'OutputDistillationLoss',
    'distill'
]
