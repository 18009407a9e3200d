"""Evaluate a checkpoint. The options are those of MMDetection's tool of the same name."""
from __future__ import annotations

import argparse
from typing import Sequence

from .command_line import command_line
from .options import add_cfg_options, add_launcher, make_parser, take_local_rank


def parse_args(argv: Sequence[str] | None, prog: str | None) -> argparse.Namespace:
    """Read the command line."""
    parser = make_parser(__doc__, prog)
    parser.add_argument('config', help='path of the config')
    parser.add_argument('checkpoint', help='checkpoint of its model, or an exported .onnx file')
    parser.add_argument('--work-dir', help='folder for logs and metrics')
    parser.add_argument(
        '--engine',
        choices=['onnxruntime', 'openvino'],
        help='what runs an .onnx file (the one that it was written for)')
    parser.add_argument('--out', help='.pkl file that the predictions are written to')
    parser.add_argument('--show', action='store_true', help='show the detections in a window')
    parser.add_argument(
        '--show-dir', help='folder below WORK_DIR/<time>/ for images with the detections')
    parser.add_argument(
        '--wait-time', type=float, default=2, help='seconds that each image is shown')
    add_cfg_options(
        parser, 'test_dataloader.batch_size=4; lists as key="[a,b]" or key=a,b, without spaces')
    add_launcher(parser)
    parser.add_argument('--tta', action='store_true', help='augment at test time (mirror images)')
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Test as the command line says."""
    args = take_local_rank(parse_args(argv, prog))
    with command_line():
        from mmaqd.engine import launch
        launch.test(**args)
