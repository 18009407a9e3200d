"""Write the low-bit config of a detector from the config of the float one.

    python tools/quantize_config.py retinanet/retinanet_r50_fpn_1x_coco.py --out my_w4a4.py
"""
from __future__ import annotations

import argparse

from mmengine.config import DictAction

from mmaqd.conversion import automatic
from mmaqd.engine.command_line import command_line


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help="path of a config, or name of one of MMDetection's")
    parser.add_argument('--out', required=True, help='config to write, for tools/train.py')
    parser.add_argument(
        '--bits', type=int, default=4, help='of weights and inputs, 2 to 8 (%(default)s)')
    parser.add_argument(
        '--method',
        default='liq',
        choices=sorted(automatic.METHODS),
        help='quantizers (%(default)s)')
    parser.add_argument(
        '--size', type=int, help='pixels of a random image (128, or more if needed)')
    parser.add_argument(
        '--real-images', action='store_true', help='look at the training data instead')
    parser.add_argument('--overwrite', action='store_true', help='replace the file if it exists')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='keys of the config and their new values, which become part of the new one')
    return parser.parse_args()


def main() -> None:
    """Write the config that the command line asks for."""
    args = parse_args()
    with command_line():
        print(automatic.quantize_config(**vars(args)).summary)


if __name__ == '__main__':
    main()
