"""The command line that the tools in this folder share."""
from __future__ import annotations

import argparse

from mmengine.config import DictAction


def parser_for_checkpoint(doc: str, out: str) -> argparse.ArgumentParser:
    """A parser of a config, its checkpoint and the file that is made of them.

    Args:
        doc: Docstring of the tool, whose first line is its description.
        out: Help of the file to write.
    """
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument('config', help='path of the config')
    parser.add_argument('checkpoint', help='its trained or calibrated checkpoint')
    parser.add_argument('--out', required=True, help=out)
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='keys of the config and their new values')
    return parser


def add_conversion(parser: argparse.ArgumentParser) -> None:
    """Add the options of a conversion to integers."""
    parser.add_argument(
        '--stream-bits',
        type=int,
        default=8,
        dest='stream_bit_width',
        help='bits of skip and top-down connections, 4 to 16 (%(default)s, the most that engines '
        'run)')
    parser.add_argument(
        '--allow-float', action='store_true', help='convs that a rule leaves in float stay so')
