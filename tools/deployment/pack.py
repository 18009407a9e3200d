"""Pack a trained low-bit checkpoint: codes in their own bits, for evaluation."""

from __future__ import annotations

import argparse

from mmengine.config import DictAction

from mmaqd.export import pack_checkpoint


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='path of the low-bit config')
    parser.add_argument('checkpoint', help='its trained or calibrated checkpoint')
    parser.add_argument('--out', required=True, help='model.safetensors to write')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='keys of the config and their new values')
    return parser.parse_args()


def main() -> None:
    """Pack as the command line says."""
    pack_checkpoint(**vars(parse_args()))


if __name__ == '__main__':
    main()
