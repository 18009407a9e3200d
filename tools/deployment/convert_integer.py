"""Convert a trained low-bit detector to integers that torch runs: the twin, the reference."""

from __future__ import annotations

import argparse

from mmengine.config import DictAction

from mmaqd.export import convert_integer


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='path of the low-bit config')
    parser.add_argument('checkpoint', help='its trained or calibrated checkpoint')
    parser.add_argument(
        '--out', required=True, help='twin.pth to write; its config twin.py comes beside it')
    parser.add_argument(
        '--num-images',
        type=int,
        default=32,
        help='training images that skip connections are calibrated on (%(default)s)')
    parser.add_argument(
        '--stream-bits',
        type=int,
        default=8,
        dest='stream_bit_width',
        help='bits of skip and top-down connections, 4 to 16 (%(default)s, what the engines run)')
    parser.add_argument(
        '--allow-float', action='store_true', help='convs that a rule leaves in float stay so')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='keys of the config and their new values')
    return parser.parse_args()


def main() -> None:
    """Convert as the command line says."""
    convert_integer(**vars(parse_args()))


if __name__ == '__main__':
    main()
