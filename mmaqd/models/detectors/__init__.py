from .distillation import DistillationMixin, distill
from .recording import record_outputs

__all__ = ['DistillationMixin', 'distill', 'record_outputs']
