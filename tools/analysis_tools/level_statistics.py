"""Statistics of each pyramid level in the head against those that its BN normalizes by.

    python tools/analysis_tools/level_statistics.py CONFIG CHECKPOINT --layers '*.cls_convs.*'
"""
from __future__ import annotations

from arguments import parser_for_model

from mmaqd.analysis import report_level_statistics


def main() -> None:
    """Report as the command line says."""
    parser = parser_for_model(__doc__, split='train', num_batches=16)
    parser.add_argument('--layers', default='*', help='names of the norms to draw (%(default)s)')
    report_level_statistics(**vars(parser.parse_args()))


if __name__ == '__main__':
    main()
