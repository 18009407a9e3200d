from .hooks import (ChangeBitsHook, CompileKernelsHook, EpochSeedHook, InitializeIntervalsHook,
                    LogIntervalsHook, ReestimateBNHook, seed_worker)

__all__ = [
    'ChangeBitsHook', 'CompileKernelsHook', 'EpochSeedHook', 'InitializeIntervalsHook',
    'LogIntervalsHook', 'ReestimateBNHook', 'seed_worker'
]
