"""Signal to quantization noise ratio of each layer, and histograms with the quantizers' levels.

    python tools/analysis_tools/quantization_noise.py CONFIG CHECKPOINT --layers 'neck.*'
"""
from __future__ import annotations

from arguments import parser_for_model

from mmaqd.analysis import report_quantization_noise


def main() -> None:
    """Report as the command line says."""
    parser = parser_for_model(__doc__, split='train', num_batches=2)
    parser.add_argument(
        '--layers', default='*', help='names of the layers with histograms (%(default)s)')
    report_quantization_noise(**vars(parser.parse_args()))


if __name__ == '__main__':
    main()
