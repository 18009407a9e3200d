from .hooks import (ChangeBitsHook, ChangeClassesHook, ChannelsLastHook, CompileKernelsHook,
                    EpochSeedHook, InitializeIntervalsHook, LogIntervalsHook, ReestimateBNHook,
                    seed_worker)

__all__ = [
    'ChangeBitsHook', 'ChangeClassesHook', 'ChannelsLastHook', 'CompileKernelsHook',
    'EpochSeedHook', 'InitializeIntervalsHook', 'LogIntervalsHook', 'ReestimateBNHook',
    'seed_worker'
]
