from .change_bits_hook import ChangeBitsHook
from .change_classes_hook import ChangeClassesHook
from .channels_last_hook import ChannelsLastHook
from .compile_kernels_hook import CompileKernelsHook
from .epoch_seed_hook import EpochSeedHook, seed_worker
from .initialize_intervals_hook import InitializeIntervalsHook
from .log_intervals_hook import LogIntervalsHook
from .reestimate_bn_hook import ReestimateBNHook
from .refuse_invalid_loss_hook import InvalidLossError, RefuseInvalidLossHook
from .train_packed_hook import TrainPackedHook

__all__ = [
    'ChangeBitsHook', 'ChangeClassesHook', 'ChannelsLastHook', 'CompileKernelsHook',
    'EpochSeedHook', 'InitializeIntervalsHook', 'InvalidLossError', 'LogIntervalsHook',
    'ReestimateBNHook', 'RefuseInvalidLossHook', 'TrainPackedHook', 'seed_worker'
]
