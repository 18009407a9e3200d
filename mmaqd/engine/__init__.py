from .hooks import (ChangeBitsHook, ChannelsLastHook, CompileKernelsHook, EpochSeedHook,
                    InitializeIntervalsHook, LogIntervalsHook, ReestimateBNHook, seed_worker)

__all__ = [
    'ChangeBitsHook', 'ChannelsLastHook', 'CompileKernelsHook', 'EpochSeedHook',
    'InitializeIntervalsHook', 'LogIntervalsHook', 'ReestimateBNHook', 'seed_worker'
]
