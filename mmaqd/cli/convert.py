"""Convert a trained low-bit detector to integers that torch runs: the twin, the reference."""
from __future__ import annotations

import argparse
from typing import Sequence

from .command_line import command_line
from .options import add_conversion, parser_for_checkpoint


def parse_args(argv: Sequence[str] | None, prog: str | None) -> argparse.Namespace:
    """Read the command line."""
    parser = parser_for_checkpoint(__doc__, 'twin.pth to write; its config twin.py comes beside it',
                                   prog)
    add_conversion(parser)
    parser.add_argument(
        '--num-images',
        type=int,
        default=32,
        help='training images that skip connections are calibrated on (%(default)s)')
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Convert as the command line says."""
    args = vars(parse_args(argv, prog))
    with command_line():
        from mmaqd.export import convert_integer
        convert_integer(**args)
