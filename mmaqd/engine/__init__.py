from .hooks import (ChangeBitsHook, EpochSeedHook, InitializeIntervalsHook, LogIntervalsHook,
                    ReestimateBNHook, seed_worker)

__all__ = [
    'ChangeBitsHook', 'EpochSeedHook', 'InitializeIntervalsHook', 'LogIntervalsHook',
    'ReestimateBNHook', 'seed_worker'
]
