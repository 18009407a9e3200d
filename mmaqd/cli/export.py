"""Write a trained low-bit detector as an ONNX file that detects, on integer kernels."""
from __future__ import annotations

import argparse
from typing import Sequence

from .command_line import command_line
from .options import add_conversion, parser_for_checkpoint


def parse_args(argv: Sequence[str] | None, prog: str | None) -> argparse.Namespace:
    """Read the command line."""
    parser = parser_for_checkpoint(__doc__, 'model.onnx to write', prog)
    add_conversion(parser)
    parser.add_argument(
        '--size', type=int, nargs=2, metavar=('H', 'W'), help='input size (the test pipeline\'s)')
    parser.add_argument('--batch', type=int, default=1, help='images at a time (%(default)s)')
    parser.add_argument(
        '--engine',
        choices=['onnxruntime', 'openvino'],
        default='onnxruntime',
        help='whose integer kernels the file is for (%(default)s); the numbers are the same')
    parser.add_argument('--dynamic', action='store_true', help='any number and size of images')
    parser.add_argument('--raw', action='store_true', help='prediction maps, no boxes and NMS')
    parser.add_argument(
        '--qonnx', action='store_true', help='prediction maps as QONNX, for FPGA tools')
    parser.add_argument(
        '--packed', action='store_true', help='weights in 4 or 2 bits, for ONNX Runtime')
    parser.add_argument(
        '--float', action='store_true', dest='in_float', help='the float network of a float config')
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Export as the command line says."""
    args = vars(parse_args(argv, prog))
    with command_line():
        from mmaqd.export.exported import export_detector
        export_detector(**args)
