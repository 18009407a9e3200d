from .hooks import EpochSeedHook, InitializeIntervalsHook, LogIntervalsHook, seed_worker

__all__ = ['EpochSeedHook', 'InitializeIntervalsHook', 'LogIntervalsHook', 'seed_worker']
