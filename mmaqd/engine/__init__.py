from .hooks import (ChangeBitsHook, ChangeClassesHook, ChannelsLastHook, CompileKernelsHook,
                    EpochSeedHook, InitializeIntervalsHook, InvalidLossError, LogIntervalsHook,
                    ReestimateBNHook, RefuseInvalidLossHook, TrainPackedHook, seed_worker)

__all__ = [
    'ChangeBitsHook', 'ChangeClassesHook', 'ChannelsLastHook', 'CompileKernelsHook',
    'EpochSeedHook', 'InitializeIntervalsHook', 'InvalidLossError', 'LogIntervalsHook',
    'ReestimateBNHook', 'RefuseInvalidLossHook', 'TrainPackedHook', 'seed_worker'
]
