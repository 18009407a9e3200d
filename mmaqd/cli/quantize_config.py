"""Write the low-bit config of a detector from the config of the float one."""
from __future__ import annotations

import argparse
from typing import Sequence

from .command_line import command_line
from .options import add_cfg_options, make_parser


def parse_args(argv: Sequence[str] | None, prog: str | None) -> argparse.Namespace:
    """Read the command line."""
    parser = make_parser(__doc__, prog)
    parser.add_argument('config', help="path of a config, or name of one of MMDetection's")
    parser.add_argument('--out', required=True, help='config to write, for training')
    parser.add_argument(
        '--bits', type=int, default=4, help='of weights and inputs, 2 to 8 (%(default)s)')
    parser.add_argument(
        '--method',
        default='liq',
        choices=('liq', 'lsq', 'lsqplus'),
        help='quantizers (%(default)s)')
    parser.add_argument(
        '--size', type=int, help='pixels of a random image (128, or more if needed)')
    parser.add_argument(
        '--real-images', action='store_true', help='look at the training data instead')
    parser.add_argument('--overwrite', action='store_true', help='replace the file if it exists')
    add_cfg_options(parser, 'model.backbone.norm_eval=False')
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Write the config that the command line asks for."""
    args = parse_args(argv, prog)
    with command_line():
        from mmaqd.conversion import automatic
        print(automatic.quantize_config(**vars(args)).summary)
