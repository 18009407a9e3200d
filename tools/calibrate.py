"""Quantize a trained float detector without training: only the intervals are started, from data."""

from __future__ import annotations

import argparse

from mmengine.config import DictAction

from mmaqd.engine import post_training
from mmaqd.engine.command_line import command_line


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='path of the low-bit config')
    parser.add_argument('checkpoint', help='checkpoint of its float twin')
    parser.add_argument('--out', required=True, help='low-bit checkpoint to write, for test.py')
    parser.add_argument(
        '--num-batches', type=int, default=16, help='batches of training data (%(default)s)')
    parser.add_argument(
        '--reestimate-bn',
        action='store_true',
        help='estimate the statistics of BN anew, with the quantized weights and inputs')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='keys of the config and their new values, such as '
        'model.quantization.weight_quantizer.normalize=False')
    return parser.parse_args()


def main() -> None:
    """Calibrate as the command line says."""
    args = parse_args()
    with command_line():
        post_training.calibrate_checkpoint(**vars(args))


if __name__ == '__main__':
    main()
