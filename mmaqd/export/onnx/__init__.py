"""Integer graphs as ONNX files, for ONNX Runtime and OpenVINO, and as QONNX for FPGA tools."""
from .builder import Builder, MissingPackage
from .packed import packed_versions
from .qonnx import to_qonnx
from .writer import KINDS, add_network, prediction_names, to_onnx, with_edges

__all__ = [
    'Builder', 'KINDS', 'MissingPackage', 'add_network', 'packed_versions', 'prediction_names',
    'to_onnx', 'to_qonnx', 'with_edges'
]
