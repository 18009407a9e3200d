"""The command line that the tools in this folder share."""
from __future__ import annotations

import argparse
from typing import Any

from mmengine.config import DictAction


def parser_for_model(doc: str, **defaults: Any) -> argparse.ArgumentParser:
    """A parser of config, checkpoint and what goes with them.

    Args:
        doc: Docstring of the tool, whose first line is its description.
        **defaults: Defaults of ``split`` and ``num_batches``.
    """
    parser = parser_for_config(doc)
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


def parser_for_config(doc: str) -> argparse.ArgumentParser:
    """A parser of a config and where the files go."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument('config', help='path of the config')
    parser.add_argument(
        '--out', help="folder for tables and pictures (analysis/ in the config's work dir)")
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='keys of the config and their new values, such as train_dataloader.batch_size=4')
    return parser
