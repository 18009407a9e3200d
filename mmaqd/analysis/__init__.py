"""Figures and pictures about a detector; nothing here changes one."""
from mmaqd.analysis.detections import plot_detections
from mmaqd.analysis.intervals import checkpoint_intervals, logged_intervals, plot_intervals
from mmaqd.analysis.size import bit_operations, count_macs, packed_weight_bytes

__all__ = [
    'bit_operations', 'checkpoint_intervals', 'count_macs', 'logged_intervals',
    'packed_weight_bytes', 'plot_detections', 'plot_intervals'
]
