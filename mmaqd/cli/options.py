"""Arguments that several commands share."""
from __future__ import annotations

import argparse
import os
from typing import Any

from mmengine.config import DictAction


def make_parser(doc: str, prog: str | None = None) -> argparse.ArgumentParser:
    """A parser without arguments.

    Args:
        doc: Docstring of the command, whose first line is its description.
        prog: The words in front of the arguments; None for the name of the script.
    """
    return argparse.ArgumentParser(description=doc.splitlines()[0], prog=prog)


def add_cfg_options(parser: argparse.ArgumentParser, example: str) -> None:
    """Add ``--cfg-options``, with an example of a key and its value."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help=f'keys of the config and their new values, such as {example}')


def add_launcher(parser: argparse.ArgumentParser) -> None:
    """Add what a launcher of several processes needs."""
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    # torch.distributed.launch passes one of these; torchrun sets the variable itself.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)


def take_local_rank(args: argparse.Namespace) -> dict[str, Any]:
    """Put the local rank where torch looks for it; the other arguments."""
    others = vars(args)
    os.environ.setdefault('LOCAL_RANK', str(others.pop('local_rank')))
    return others


def parser_for_checkpoint(doc: str, out: str, prog: str | None) -> argparse.ArgumentParser:
    """A parser of a config, its checkpoint and the file that is made of them.

    Args:
        doc, prog: As for :func:`make_parser`.
        out: Help of the file to write.
    """
    parser = make_parser(doc, prog)
    parser.add_argument('config', help='path of the config')
    parser.add_argument('checkpoint', help='its trained or calibrated checkpoint')
    parser.add_argument('--out', required=True, help=out)
    add_cfg_options(parser, 'model.bbox_head.num_classes=3')
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
