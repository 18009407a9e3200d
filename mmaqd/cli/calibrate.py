"""Quantize a trained float detector without training: only intervals are initialized."""
from __future__ import annotations

import argparse
from typing import Sequence

from .command_line import command_line
from .options import add_cfg_options, make_parser


def parse_args(argv: Sequence[str] | None, prog: str | None) -> argparse.Namespace:
    """Read the command line."""
    parser = make_parser(__doc__, prog)
    parser.add_argument('config', help='path of the low-bit config')
    parser.add_argument('checkpoint', help='checkpoint of its float twin')
    parser.add_argument('--out', required=True, help='low-bit checkpoint to write')
    parser.add_argument(
        '--num-batches', type=int, default=16, help='batches of training data (%(default)s)')
    parser.add_argument(
        '--reestimate-bn',
        action='store_true',
        help='estimate the statistics of BN anew, with the quantized weights and inputs')
    add_cfg_options(parser, 'model.quantization.weight_quantizer.normalize=False')
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Calibrate as the command line says."""
    args = vars(parse_args(argv, prog))
    with command_line():
        from mmaqd.engine import post_training
        post_training.calibrate_checkpoint(**args)
