"""Pack a trained low-bit checkpoint: codes in their own bits, for evaluation."""

from __future__ import annotations

from model_arguments import parser_for_checkpoint

from mmaqd.export import pack_checkpoint


def main() -> None:
    """Pack as the command line says."""
    parser = parser_for_checkpoint(__doc__, 'model.safetensors to write')
    pack_checkpoint(**vars(parser.parse_args()))


if __name__ == '__main__':
    main()
