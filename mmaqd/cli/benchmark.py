"""Latencies of ONNX files in ONNX Runtime and OpenVINO, measured in turn, in one run.

    mmaqd benchmark float.onnx 4bit.onnx
    mmaqd benchmark onnxruntime:float=float.onnx onnxruntime:4bit=ort.onnx \
        openvino:float=float.onnx openvino:4bit=ov.onnx --threads 2 --plot latency.png

The first file of an engine is the one that the others are compared with.
"""
from __future__ import annotations

import argparse
from pathlib import PurePath
from typing import TYPE_CHECKING, Sequence

from .command_line import command_line
from .options import make_parser

if TYPE_CHECKING:
    from mmaqd.export.latency import Latency


def parse_args(argv: Sequence[str] | None, prog: str | None) -> argparse.Namespace:
    """Read the command line."""
    parser = make_parser(__doc__, prog)
    parser.add_argument(
        'files',
        nargs='+',
        metavar='[ENGINE:NAME=]FILE',
        help='onnxruntime (the default) or openvino, a name for the table, and the ONNX file')
    parser.add_argument(
        '--shape',
        type=int,
        nargs=4,
        metavar=('N', 'C', 'H', 'W'),
        help='of the input, by default that of each file')
    parser.add_argument('--threads', type=int, default=1, help='of each engine (%(default)s)')
    parser.add_argument('--rounds', type=int, default=20, help='runs of each file (%(default)s)')
    parser.add_argument('--plot', help='picture of the latencies as bars')
    parser.add_argument('--profile', action='store_true', help='also list the slowest operators')
    return parser.parse_args(argv)


def parse_file(text: str) -> tuple[tuple[str, str], str]:
    """Name, engine and path of ENGINE:NAME=FILE, or of a path alone."""
    if '=' not in text:
        return (PurePath(text).stem, 'onnxruntime'), text
    head, _, path = text.partition('=')
    engine, _, name = head.partition(':')
    if not (engine and name and path):
        raise SystemExit(f'{text!r} is no ENGINE:NAME=FILE, like onnxruntime:4bit=detector.onnx.')
    return (name, engine), path


def print_table(latencies: list[Latency]) -> None:
    """Markdown: medians, the spread, and how many times faster than the engine's first file."""
    print('| engine | file | median ms (min to max) | times faster |\n|---|---|---|---|')
    first: dict[str, Latency] = {}
    for each in latencies:
        base = first.setdefault(each.engine, each)
        print(f'| {each.engine} | {each.name} | {each.median:.1f} ({min(each.repeats):.1f} to '
              f'{max(each.repeats):.1f}) | {base.median / each.median:.2f} |')


def plot(latencies: list[Latency], path: str) -> None:
    """Bars of the medians."""
    from matplotlib.figure import Figure
    figure = Figure(figsize=(7, 0.5 + 0.5 * len(latencies)), layout='constrained')
    axes = figure.subplots()
    axes.barh([f'{each.engine}: {each.name}' for each in latencies],
              [each.median for each in latencies])
    axes.invert_yaxis()
    axes.set_xlabel('ms per image batch, median')
    figure.savefig(path)


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Measure as the command line says."""
    args = parse_args(argv, prog)
    files = dict(parse_file(each) for each in args.files)
    if len(files) < len(args.files):
        raise SystemExit('Two files have one name: give each its own, ENGINE:NAME=FILE.')
    with command_line():
        from mmaqd.export.latency import measure, profile
        latencies = measure(files, args.shape, args.threads, args.rounds)
        print_table(latencies)
        if args.plot:
            plot(latencies, args.plot)
        for (name, engine), path in files.items() if args.profile else ():
            print(f'\n{engine}: {name}')
            for operator, spent, share in profile(engine, path, args.shape, args.threads)[:15]:
                print(f'{spent:8.2f} ms {share:6.1%}  {operator}')
