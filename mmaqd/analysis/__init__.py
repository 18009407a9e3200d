"""Figures and pictures about a detector; nothing here changes one."""
from .detections import plot_detections
from .distributions import (QuantizedTensor, noise_table, plot_histograms, plot_noise,
                            quantized_tensors)
from .intervals import checkpoint_intervals, logged_intervals, plot_interval_history, plot_intervals
from .level_statistics import (LevelStatistics, level_statistics, level_table,
                               plot_level_statistics, with_shared_norm)
from .loading import (build_detector, initialize_intervals, is_float_checkpoint, iterate_batches,
                      load_detector)
from .macs import count_macs, detector_macs
from .reports import (report_intervals, report_level_statistics, report_quantization_noise,
                      report_sensitivity, report_size)
from .sensitivity import (GroupScore, Sensitivity, detection_score, mean_loss, plot_sensitivity,
                          reestimated_norms, sensitivity, sensitivity_table)
from .size import (LayerSize, bit_operations, image_size, layer_sizes, packed_weight_bytes,
                   size_summary, size_table, with_float_work)
from .switching import group_layers, only_quantized, quantized_layers, stage_of
from .tables import format_rows, write_rows

__all__ = [
    'GroupScore', 'LayerSize', 'LevelStatistics', 'QuantizedTensor', 'Sensitivity',
    'bit_operations', 'build_detector', 'checkpoint_intervals', 'count_macs', 'detection_score',
    'detector_macs', 'format_rows', 'group_layers', 'image_size', 'is_float_checkpoint',
    'iterate_batches', 'layer_sizes', 'level_statistics', 'level_table', 'load_detector',
    'logged_intervals', 'mean_loss', 'noise_table', 'only_quantized', 'packed_weight_bytes',
    'plot_detections', 'plot_histograms', 'plot_interval_history', 'plot_intervals',
    'plot_level_statistics', 'plot_noise', 'plot_sensitivity', 'quantized_layers',
    'quantized_tensors', 'reestimated_norms', 'report_intervals', 'report_level_statistics',
    'report_quantization_noise', 'report_sensitivity', 'report_size', 'sensitivity',
    'sensitivity_table', 'size_summary', 'size_table', 'stage_of', 'initialize_intervals',
    'with_shared_norm', 'write_rows', 'with_float_work'
]
