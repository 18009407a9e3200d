from .distillation_loss import DistillationLoss
from .feature_distillation_loss import FeatureDistillationLoss
from .output_distillation_loss import OutputDistillationLoss

__all__ = ['DistillationLoss', 'FeatureDistillationLoss', 'OutputDistillationLoss']
