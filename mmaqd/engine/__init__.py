from .hooks import (ChangeBitsHook, ChannelsLastHook, CompileKernelsHook, EpochSeedHook,
                    InitializeIntervalsHook, InvalidLossError, LogIntervalsHook, ReestimateBNHook,
                    RefuseInvalidLossHook, seed_worker)

__all__ = [
    'ChangeBitsHook', 'ChannelsLastHook', 'CompileKernelsHook', 'EpochSeedHook',
    'InitializeIntervalsHook', 'InvalidLossError', 'LogIntervalsHook', 'RefuseInvalidLossHook',
    'ReestimateBNHook', 'seed_worker'
]
