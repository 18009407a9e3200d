"""Loss or AP with one layer or stage quantized at a time and all else in float, or the reverse.

    python tools/analysis_tools/sensitivity.py CONFIG CHECKPOINT
    python tools/analysis_tools/sensitivity.py CONFIG CHECKPOINT --by layer --all-but-one
    python tools/analysis_tools/sensitivity.py CONFIG CHECKPOINT --metric coco/bbox_mAP
"""
from __future__ import annotations

from arguments import parser_for_model

from mmaqd.analysis import report_sensitivity


def main() -> None:
    """Report as the command line says."""
    parser = parser_for_model(__doc__, num_batches=4)
    parser.add_argument(
        '--by', choices=['stage', 'layer'], default='stage', help='groups (%(default)s)')
    parser.add_argument(
        '--groups', nargs='+', default=(), help="groups by name, such as 'backbone.*' 'neck.*'")
    parser.add_argument(
        '--metric', help='metric of the evaluator, such as coco/bbox_mAP; the loss if not given')
    parser.add_argument(
        '--all-but-one', action='store_true', help='quantize everything but one group')
    report_sensitivity(**vars(parser.parse_args()))


if __name__ == '__main__':
    main()
