"""Convert a trained low-bit detector to integers that torch runs: the twin, the reference."""

from __future__ import annotations

from model_arguments import add_conversion, parser_for_checkpoint

from mmaqd.export import convert_integer


def main() -> None:
    """Convert as the command line says."""
    parser = parser_for_checkpoint(__doc__, 'twin.pth to write; its config twin.py comes beside it')
    add_conversion(parser)
    parser.add_argument(
        '--num-images',
        type=int,
        default=32,
        help='training images that skip connections are calibrated on (%(default)s)')
    convert_integer(**vars(parser.parse_args()))


if __name__ == '__main__':
    main()
