"""Detect objects in images by a checkpoint, in PyTorch, and draw them."""
from __future__ import annotations

import argparse
from typing import Sequence

from .command_line import command_line
from .options import make_parser


def parse_args(argv: Sequence[str] | None, prog: str | None) -> argparse.Namespace:
    """Read the command line."""
    parser = make_parser(__doc__, prog)
    parser.add_argument('config', help='path of the config')
    parser.add_argument('checkpoint', help='its checkpoint, or a packed one (.safetensors)')
    parser.add_argument('images', help='image, or folder of images')
    parser.add_argument('--out', required=True, help='folder; images go to vis/, JSON to preds/')
    parser.add_argument(
        '--score-thr',
        type=float,
        default=0.3,
        dest='score_threshold',
        help='lowest score that is drawn (%(default)s)')
    parser.add_argument('--device', help='such as cuda:1; by default a GPU if there is one')
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Detect as the command line says."""
    args = parse_args(argv, prog)
    with command_line():
        from mmaqd.engine.inference import detect_images
        found = detect_images(**vars(args))
    counts = [sum(score >= args.score_threshold for score in each['scores']) for each in found]
    print(f'{sum(counts)} detections in {len(found)} images: {args.out}/vis')
