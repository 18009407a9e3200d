"""Evaluate a checkpoint. The options are those of MMDetection's tool of the same name."""

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
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='keys of the config and their new values, such as test_dataloader.batch_size=4; lists '
        'as key="[a,b]" or key=a,b, without spaces')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    parser.add_argument('--tta', action='store_true', help='augment at test time (mirror images)')
    # torch.distributed.launch passes one of these; torchrun sets the variable itself.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)
    args = parser.parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def main() -> None:
    """Test as the command line says."""
    args = vars(parse_args())
    args.pop('local_rank')
    with command_line():
        launch.test(**args)


if __name__ == '__main__':
    main()
