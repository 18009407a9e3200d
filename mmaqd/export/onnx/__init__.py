"""Integer graphs as ONNX files, for ONNX Runtime and OpenVINO, and as QONNX for FPGA tools."""
from .builder import Builder, MissingPackage
from .packed import packed_versions
from .qonnx import to_qonnx
from .writer import KINDS, add_network, to_onnx

__all__ = [
    'Builder', 'KINDS', 'MissingPackage', 'add_network', 'packed_versions', 'to_onnx', 'to_qonnx'
]
