"""Tables and pictures about a detector: its size, its intervals, its noise, its weakest layers."""
from __future__ import annotations

import argparse
from typing import Any, Sequence

from .command_line import command_line
from .options import add_cfg_options, make_parser
from .table import Command, Table

_SIZE = 'size'
TABLE = Table(
    __doc__, {
        'Of a config':
        (Command(_SIZE, 'mmaqd.cli.report:model_size',
                 'Bytes, MACs and bit operations of each layer; also: mmaqd report CONFIG.'), ),
        'Of a training': (Command('intervals', 'mmaqd.cli.report:plot_intervals',
                                  'The learned intervals over the iterations.'), ),
        'Of a checkpoint': (
            Command('noise', 'mmaqd.cli.report:quantization_noise',
                    'What quantization does to the weights and inputs of each layer.'),
            Command('sensitivity', 'mmaqd.cli.report:sensitivity',
                    'Loss or AP with one layer or stage quantized at a time.'),
            Command('levels', 'mmaqd.cli.report:level_statistics',
                    "Features of each pyramid level against the statistics of the head's BN."),
        ),
    })


def main(argv: Sequence[str], prog: str) -> int:
    """Make the report that the first argument names: ``size`` if it is a config."""
    is_config = bool(argv) and argv[0].endswith('.py')
    return TABLE.run([_SIZE, *argv] if is_config else argv, prog)


def model_size(argv: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Bytes of the weights and bit operations of each layer and in total, beside the float twin's.

    mmaqd report size CONFIG --shape 800 1344
    """
    parser = _parser_for_config(model_size.__doc__, prog)
    parser.add_argument(
        '--shape',
        type=int,
        nargs=2,
        metavar=('HEIGHT', 'WIDTH'),
        help="size of the image in pixels (that of the config's test pipeline)")
    args = parser.parse_args(argv)
    with command_line():
        from mmaqd.analysis import build_detector, report_size
        from mmaqd.conversion import quantization_table
        cfg, model = build_detector(args.config, args.cfg_options)
        report_size(cfg, model, quantization_table(model), args.out, args.shape)


def plot_intervals(argv: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Intervals over a training that had the hook mmaqd.LogIntervalsHook, from its work dir."""
    parser = make_parser(plot_intervals.__doc__, prog)
    parser.add_argument('work_dir', help='work dir of the training')
    parser.add_argument('--out', help='folder for table and picture (analysis/ in the work dir)')
    args = vars(parser.parse_args(argv))
    with command_line():
        from mmaqd.analysis import report_intervals
        report_intervals(**args)


def quantization_noise(argv: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Signal to quantization noise ratio of each layer, and histograms with the quantizers' grid.

    mmaqd report noise CONFIG CHECKPOINT --layers 'neck.*'
    """
    parser = _parser_for_model(quantization_noise.__doc__, prog, split='train', num_batches=2)
    parser.add_argument(
        '--layers', default='*', help='names of the layers with histograms (%(default)s)')
    args = vars(parser.parse_args(argv))
    with command_line():
        from mmaqd.analysis import report_quantization_noise
        report_quantization_noise(**args)


def sensitivity(argv: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Loss or AP with one layer or stage quantized at a time and all else in float, or the reverse.

    mmaqd report sensitivity CONFIG CHECKPOINT
    mmaqd report sensitivity CONFIG CHECKPOINT --by layer --all-but-one
    mmaqd report sensitivity CONFIG CHECKPOINT --metric coco/bbox_mAP
    """
    parser = _parser_for_model(sensitivity.__doc__, prog, num_batches=4)
    parser.add_argument(
        '--by', choices=['stage', 'layer'], default='stage', help='groups (%(default)s)')
    parser.add_argument(
        '--groups', nargs='+', default=(), help="groups by name, such as 'backbone.*' 'neck.*'")
    parser.add_argument(
        '--metric', help='metric of the evaluator, such as coco/bbox_mAP; the loss if not given')
    parser.add_argument(
        '--all-but-one', action='store_true', help='quantize everything but one group')
    args = vars(parser.parse_args(argv))
    with command_line():
        from mmaqd.analysis import report_sensitivity
        report_sensitivity(**args)


def level_statistics(argv: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Statistics of each pyramid level in the head against those that its BN normalizes by.

    mmaqd report levels CONFIG CHECKPOINT --layers '*.cls_convs.*'
    """
    parser = _parser_for_model(level_statistics.__doc__, prog, split='train', num_batches=16)
    parser.add_argument('--layers', default='*', help='names of the norms to draw (%(default)s)')
    args = vars(parser.parse_args(argv))
    with command_line():
        from mmaqd.analysis import report_level_statistics
        report_level_statistics(**args)


def _parser_for_model(doc: str, prog: str | None, **defaults: Any) -> argparse.ArgumentParser:
    """A parser of config, checkpoint and the data to look at, with defaults of the latter."""
    parser = _parser_for_config(doc, prog)
    parser.add_argument('checkpoint', help='checkpoint of its model')
    parser.add_argument(
        '--split',
        choices=['train', 'val', 'test'],
        default=defaults.get('split'),
        help='data to look at (%(default)s)')
    parser.add_argument(
        '--num-batches',
        type=int,
        default=defaults['num_batches'],
        help='batches to look at (%(default)s)')
    parser.add_argument('--device', help='such as cuda:1; by default a GPU if there is one')
    return parser


def _parser_for_config(doc: str, prog: str | None) -> argparse.ArgumentParser:
    """A parser of a config and where the files go."""
    parser = make_parser(doc, prog)
    parser.add_argument('config', help='path of the config')
    parser.add_argument(
        '--out', help="folder for tables and pictures (analysis/ in the config's work dir)")
    add_cfg_options(parser, 'train_dataloader.batch_size=4')
    return parser
