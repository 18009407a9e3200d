"""torchrun for dist_train.sh and dist_test.sh, which ends without a traceback of its own.

The processes have said what was wrong, or where Ctrl-C stopped them, so only what they can't say is
added: that one of them was killed. The exit status is that of the process that failed first, or 130
after Ctrl-C.
"""
from __future__ import annotations

import logging
import signal
import sys
from typing import NoReturn

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main

_SAYS_WHAT_IT_SHUTS_DOWN = ('agent.server.api', 'multiprocessing.api')
_KILLED = 128  # a shell's exit status is this plus the signal


def end(signal_number: int, who: str) -> NoReturn:
    """Exit as after a signal, and say so unless it was Ctrl-C."""
    if signal_number != signal.SIGINT:
        name = signal.Signals(signal_number).name
        print(f'{who} was killed by {name}.', file=sys.stderr)
    sys.exit(_KILLED + signal_number)


if __name__ == '__main__':
    for module in _SAYS_WHAT_IT_SHUTS_DOWN:
        logging.getLogger(f'torch.distributed.elastic.{module}').setLevel(logging.CRITICAL)
    try:
        main()
    except SignalException as stop:
        end(stop.sigval, 'The launcher')
    except ChildFailedError as failed:
        rank, failure = failed.get_first_failure()
        if failure.exitcode < 0:
            end(-failure.exitcode, f'The process of rank {rank}')
        sys.exit(failure.exitcode)
