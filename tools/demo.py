"""Train, evaluate and compare a float and a 4-bit detector on generated data, in a few minutes.

Interrupted at any time, it goes on where it was when it is called again.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from mmaqd.demo import Demo, ToolError  # noqa: E402


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        '--work-dir',
        default='work_dirs/demo',
        help='folder for checkpoints, logs, the table and the pictures (%(default)s)')
    parser.add_argument(
        '--data-root',
        default=os.environ.get('MMAQD_SHAPES', 'data/shapes'),
        help='folder of the generated data set (%(default)s)')
    parser.add_argument(
        '--fresh', action='store_true', help='forget what an earlier call did, but the data')
    return parser.parse_args()


def main() -> None:
    """Run the demo as the command line says."""
    args = parse_args()
    try:
        Demo(args.work_dir, args.data_root).run(fresh=args.fresh)
    except KeyboardInterrupt:
        sys.exit('\nInterrupted. Call it again to go on.')
    except (ToolError, ValueError) as error:
        sys.exit(f'\n{error}')


if __name__ == '__main__':
    main()
