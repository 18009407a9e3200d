"""Bytes of the weights and bit operations of each layer and in total, beside the float twin's.

    python tools/analysis_tools/model_size.py CONFIG --shape 800 1344
"""
from __future__ import annotations

from arguments import parser_for_config

from mmaqd.analysis import build_detector, report_size
from mmaqd.conversion import quantization_table


def main() -> None:
    """Report as the command line says."""
    parser = parser_for_config(__doc__)
    parser.add_argument(
        '--shape',
        type=int,
        nargs=2,
        metavar=('HEIGHT', 'WIDTH'),
        help="size of the image in pixels (that of the config's test pipeline)")
    args = parser.parse_args()
    cfg, model = build_detector(args.config, args.cfg_options)
    report_size(cfg, model, quantization_table(model), args.out, args.shape)


if __name__ == '__main__':
    main()
