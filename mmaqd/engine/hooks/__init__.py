from .epoch_seed_hook import EpochSeedHook, seed_worker
from .initialize_intervals_hook import InitializeIntervalsHook
from .log_intervals_hook import LogIntervalsHook

__all__ = ['EpochSeedHook', 'InitializeIntervalsHook', 'LogIntervalsHook', 'seed_worker']
