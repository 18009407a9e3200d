"""Pack a trained low-bit checkpoint: codes in their own bits, for evaluation."""
from __future__ import annotations

import argparse
from typing import Sequence

from .command_line import command_line
from .options import parser_for_checkpoint


def parse_args(argv: Sequence[str] | None, prog: str | None) -> argparse.Namespace:
    """Read the command line."""
    return parser_for_checkpoint(__doc__, 'model.safetensors to write', prog).parse_args(argv)


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Pack as the command line says."""
    args = vars(parse_args(argv, prog))
    with command_line():
        from mmaqd.export import pack_checkpoint
        pack_checkpoint(**args)
