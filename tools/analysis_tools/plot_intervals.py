"""Intervals over a training that had the hook mmaqd.LogIntervalsHook, from its work dir."""
from __future__ import annotations

import argparse

from mmaqd.analysis import report_intervals


def main() -> None:
    """Report as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('work_dir', help='work dir of the training')
    parser.add_argument('--out', help='folder for table and picture (analysis/ in the work dir)')
    report_intervals(**vars(parser.parse_args()))


if __name__ == '__main__':
    main()
