"""Train the detector of a config. The options are those of MMDetection's tool of the same name."""
from __future__ import annotations

import argparse
from typing import Sequence

from .command_line import command_line
from .options import add_cfg_options, add_launcher, make_parser, take_local_rank


def parse_args(argv: Sequence[str] | None, prog: str | None) -> argparse.Namespace:
    """Read the command line."""
    parser = make_parser(__doc__, prog)
    parser.add_argument('config', help='path of the config')
    parser.add_argument('--work-dir', help='folder for logs and checkpoints')
    parser.add_argument('--amp', action='store_true', help='automatic mixed precision (GPU only)')
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate to the batch size that is really used')
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        help='go on from this checkpoint; without a path, from the latest one in the work dir')
    add_cfg_options(parser, 'train_cfg.max_epochs=6; lists as key="[a,b]" or key=a,b, without '
                    'spaces')
    add_launcher(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Train as the command line says."""
    args = take_local_rank(parse_args(argv, prog))
    with command_line():
        from mmaqd.engine import launch
        launch.train(**args)
