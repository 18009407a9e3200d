"""Low-bit detectors as integers: capture a detector, lower it to an integer graph, run that.

``capture`` takes the operators of a detector, ``lower`` turns them into an :class:`IntegerGraph`,
:class:`IntegerNetwork` (the twin) runs it in torch, ``mmaqd.export.onnx`` writes it for engines.
``packed`` writes checkpoints that hold codes.
"""
from .capture import Captured, capture
from .convert import Converted, convert_detector, convert_integer
from .emit import AccumulatorOverflow
from .file_detector import FileDetector
from .graph import IntegerGraph
from .integer_detector import IntegerDetector, set_graph
from .lower import lower, lower_detector
from .network import IntegerNetwork
from .packed import PackedFile, pack_checkpoint, store_codes
from .rules import UnsupportedOperator

__all__ = [
    'AccumulatorOverflow', 'Captured', 'Converted', 'FileDetector', 'IntegerDetector',
    'IntegerGraph', 'IntegerNetwork', 'PackedFile', 'UnsupportedOperator', 'capture',
    'convert_detector', 'convert_integer', 'lower', 'lower_detector', 'pack_checkpoint',
    'set_graph', 'store_codes'
]
