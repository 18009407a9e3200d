"""The command ``mmaqd``."""
from __future__ import annotations

import sys
from typing import Sequence

from mmaqd.version import __version__

from .table import Command, Table

TABLE = Table(
    'Low-bit object detectors for MMDetection 3.x, by config alone.', {
        'From a float detector to a low-bit one': (
            Command('quantize-config', 'mmaqd.cli.quantize_config',
                    'Write the low-bit config of any detector from its float one.'),
            Command('train', 'mmaqd.cli.train',
                    'Train the detector of a config, float or low-bit.'),
            Command('test', 'mmaqd.cli.test', 'Evaluate a checkpoint, or an exported file.'),
            Command('image-demo', 'mmaqd.cli.image_demo',
                    'Detect objects in images by a checkpoint, and draw them.'),
            Command('calibrate', 'mmaqd.cli.calibrate',
                    'Make a low-bit checkpoint of a float one in minutes, without training.'),
        ),
        'From a checkpoint to what runs elsewhere': (
            Command('export', 'mmaqd.cli.export',
                    'Write an ONNX file that detects, on integer kernels.'),
            Command('detect', 'mmaqd.cli.detect',
                    'Detect objects in images with such a file; needs no torch.'),
            Command('pack', 'mmaqd.cli.pack',
                    'Write a checkpoint that holds the codes, in their own bits.'),
            Command('convert', 'mmaqd.cli.convert',
                    'Write the integer network that torch runs, the reference.'),
        ),
        'Figures': (
            Command('report', 'mmaqd.cli.report',
                    'Tables and pictures: size and bit operations, intervals, noise, ...'),
            Command('benchmark', 'mmaqd.cli.benchmark', 'Measure the latency of exported files.'),
        ),
    })


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command ``mmaqd`` with these arguments, or those of the process; the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments == ['--version']:
        print(f'mmaqd {__version__}')
        return 0
    return TABLE.run(arguments, 'mmaqd')
