"""Train the detector of a config. The options are those of MMDetection's tool of the same name."""

from __future__ import annotations

import argparse
import os

from mmengine.config import DictAction

from mmaqd.engine import launch
from mmaqd.engine.command_line import command_line


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
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
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='keys of the config and their new values, such as train_cfg.max_epochs=6; lists as '
        'key="[a,b]" or key=a,b, without spaces')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    # torch.distributed.launch passes one of these; torchrun sets the variable itself.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)
    args = parser.parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def main() -> None:
    """Train as the command line says."""
    args = vars(parse_args())
    args.pop('local_rank')
    with command_line():
        launch.train(**args)


if __name__ == '__main__':
    main()
