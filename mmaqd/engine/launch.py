"""Training and testing a config: what tools/train.py and tools/test.py do with their arguments."""

from __future__ import annotations

import os.path as osp
from copy import deepcopy

from mmdet.evaluation import DumpDetResults
from mmdet.utils import setup_cache_size_limit_of_dynamo
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.logging import MessageHub, MMLogger, print_log
from mmengine.registry import RUNNERS
from mmengine.runner import Runner
from mmengine.utils import ManagerMixin
from mmengine.visualization import Visualizer

from mmaqd.checkpoints import WORLD_SIZE, last_whole_checkpoint
from mmaqd.compat import check_data, setup_cpu_distributed
from mmaqd.invocation import was_interrupted
from mmaqd.paths import current_config

from .explanations import explain_single_value
from .layer_decay import spare_single_values
from .pipelines import plain_datasets
from .promises import add_missing_hooks, how_to_go_on, what_comes_next

# Parts of the names of what cuts parameters into shards.
_SHARDING = ('FullyShardedDataParallel', 'FSDP', 'DeepSpeed', 'ColossalAI')


def train(config: str,
          work_dir: str | None = None,
          amp: bool = False,
          auto_scale_lr: bool = False,
          resume: str | None = None,
          cfg_options: dict | None = None,
          launcher: str = 'none') -> Runner:
    """Train the model of a config.

    Hooks that exact resuming and quantizers need are added where the config does not have them,
    see :func:`mmaqd.engine.promises.add_missing_hooks`.

    Args:
        config: Path of the config.
        work_dir: Where logs and checkpoints go; by default what the config says, or else
            ``work_dirs/`` and the config's name.
        amp: Train with automatic mixed precision (GPU only).
        auto_scale_lr: Scale the learning rate from the config's batch size to the real one.
        resume: Checkpoint to go on from; ``'auto'`` is the latest one in ``work_dir``, and where
            there is none yet the training starts as the config says.
        cfg_options: Dotted keys of the config and their new values.
        launcher: What started the processes: ``'none'``, ``'pytorch'``, ``'slurm'``, ``'mpi'``.

    Returns:
        The runner, after training.

    Raises:
        KeyboardInterrupt: It was stopped; the message says how to go on.
    """
    cfg = load_config(config, work_dir, cfg_options, launcher)
    if amp:
        enable_amp(cfg)
    if auto_scale_lr:
        enable_auto_scale_lr(cfg)
    if resume is not None:
        set_resume(cfg, resume)
    check_data(cfg, ('train', 'val') if cfg.get('val_cfg') else ('train', ))
    runner = build_runner(cfg)
    runner.message_hub.update_info(WORLD_SIZE, runner.world_size)  # for a run that resumes
    add_missing_hooks(runner)
    try:
        runner.train()
    except (Exception, KeyboardInterrupt) as error:
        if was_interrupted(error):
            raise KeyboardInterrupt(how_to_go_on(runner)) from None
        raise explain_single_value(error, runner.model) or error
    runner.logger.info(what_comes_next(runner, config, cfg_options))
    return runner


def test(config: str,
         checkpoint: str,
         work_dir: str | None = None,
         out: str | None = None,
         show: bool = False,
         show_dir: str | None = None,
         wait_time: float = 2.0,
         tta: bool = False,
         engine: str | None = None,
         cfg_options: dict | None = None,
         launcher: str = 'none') -> dict[str, float]:
    """Evaluate a checkpoint on the test split of a config.

    Args:
        config: Path of the config.
        checkpoint: Checkpoint of its model, or an ONNX file that tools/deployment/export.py wrote.
        work_dir: Where logs go, as in :func:`train`.
        out: ``.pkl`` file the predictions are written to.
        show: Show every image with its detections in a window.
        show_dir: Folder below ``work_dir/<time>/`` that the images are saved in.
        wait_time: Seconds that each image is shown.
        tta: Augment at test time: each image and its mirror image, unless the config has a
            ``tta_model`` and a ``tta_pipeline``.
        engine: What runs an ONNX file, ``'onnxruntime'`` or ``'openvino'``; None for the one that
            it was written for.
        cfg_options: Dotted keys of the config and their new values.
        launcher: As in :func:`train`.

    Returns:
        The metrics by name.

    Raises:
        ValueError: ``out`` is not the name of a pickle file.
    """
    if out is not None and not out.endswith(('.pkl', '.pickle')):
        raise ValueError(f'--out writes a pickle file: got {out!r}, expected a name in .pkl')
    cfg = load_config(config, work_dir, cfg_options, launcher)
    if checkpoint.endswith('.onnx'):
        test_file(cfg, checkpoint, engine)
    else:
        cfg.load_from, cfg.resume = checkpoint, False
    if show or show_dir:
        enable_visualization(cfg, show, show_dir, wait_time)
    if tta:
        enable_tta(cfg)
    check_data(cfg, ('test', ))
    runner = build_runner(cfg)
    if out is not None:
        runner.test_evaluator.metrics.append(DumpDetResults(out_file_path=out))
    return runner.test()


def test_file(cfg: Config, file: str, engine: str | None) -> None:
    """Let a config test an exported file in place of its model."""
    if not osp.isfile(file):
        raise FileNotFoundError(f'{file!r} does not exist: tools/deployment/export.py writes it.')
    cfg.model = dict(
        type='mmaqd.FileDetector',
        file=file,
        engine=engine,
        data_preprocessor=cfg.model.get('data_preprocessor'))
    cfg.load_from, cfg.resume = None, False


def load_config(path: str,
                work_dir: str | None = None,
                cfg_options: dict | None = None,
                launcher: str = 'none') -> Config:
    """Read a config and apply the options that training and testing share."""
    setup_cache_size_limit_of_dynamo()
    path = current_config(path)
    cfg = Config.fromfile(path)
    cfg.launcher = launcher
    cfg.merge_from_dict(cfg_options or {})
    if work_dir is not None:
        cfg.work_dir = work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = osp.join('work_dirs', osp.splitext(osp.basename(path))[0])
    return cfg


def build_runner(cfg: Config) -> Runner:
    """Build the config's runner, with several processes on the CPU made possible first.

    Raises:
        ValueError: The parameters of a low-bit model would be sharded.
    """
    _refuse_sharding(cfg)
    spare_single_values(cfg)
    setup_cpu_distributed(cfg, cfg.launcher)
    for kind in (Visualizer, MMLogger, MessageHub):
        _forget(kind)
    return RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)


def _forget(kind: type[ManagerMixin]) -> None:
    """Give each run its own: MMEngine keeps them by name, with the folder of the first run.

    A visualizer's name is in the config; that of the others has the second at which a run starts.
    """
    kind._instance_dict.clear()
    for derived in kind.__subclasses__():
        _forget(derived)


def _refuse_sharding(cfg: Config) -> None:
    if (cfg.model.get('type') or '') != 'mmaqd.QuantizedDetector':
        return
    for key in ('model_wrapper_cfg', 'strategy'):
        name = str((cfg.get(key) or {}).get('type', ''))
        if any(each in name for each in _SHARDING):
            raise ValueError(
                f'{key}: {name} cuts the parameters into shards, which the quantizers of a '
                'low-bit model can not be: each needs the whole weight, and intervals are scalars. '
                'Leave it out: several GPUs train by DistributedDataParallel then.')


def enable_amp(cfg: Config) -> None:
    """Switch a config to mixed precision.

    Raises:
        ValueError: There is no GPU; MMEngine has mixed precision for training on GPUs only.
    """
    if get_device() == 'cpu':
        raise ValueError('--amp needs a GPU, and torch sees none here: leave it out.')
    cfg.optim_wrapper.type = 'AmpOptimWrapper'
    cfg.optim_wrapper.loss_scale = 'dynamic'


def enable_auto_scale_lr(cfg: Config) -> None:
    """Switch a config's scaling of the learning rate on.

    Raises:
        ValueError: The config does not say for which batch size its learning rate is.
    """
    if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
        raise ValueError('--auto-scale-lr needs to know the batch size that the learning rate is '
                         'for, and the config has no auto_scale_lr.base_batch_size. Add '
                         'auto_scale_lr=dict(enable=False, base_batch_size=16).')
    cfg.auto_scale_lr.enable = True


def set_resume(cfg: Config, resume: str) -> None:
    """Let a config go on from a checkpoint, or from the latest one if ``resume`` is ``'auto'``.

    Where there is no checkpoint yet, ``load_from`` is kept, so that a low-bit model still starts
    from its float twin.
    """
    checkpoint = last_whole_checkpoint(cfg.work_dir) if resume == 'auto' else resume
    if checkpoint is None:
        print_log(f'--resume: no checkpoint in {cfg.work_dir} yet, so training starts afresh.')
        return
    cfg.load_from, cfg.resume = checkpoint, True


def enable_visualization(cfg: Config, show: bool, show_dir: str | None, wait_time: float) -> None:
    """Let a config's visualization hook draw the detections.

    Raises:
        ValueError: The config has no such hook.
    """
    hook = cfg.get('default_hooks', {}).get('visualization')
    if hook is None:
        raise ValueError('--show and --show-dir need the visualization hook, which the config does '
                         "not have. Add default_hooks=dict(visualization=dict("
                         "type='DetVisualizationHook')).")
    hook.update(draw=True, show=show, wait_time=wait_time, test_out_dir=show_dir)


def enable_tta(cfg: Config) -> None:
    """Wrap a config's model and test pipeline for test-time augmentation by mirroring."""
    if 'tta_model' not in cfg:
        cfg.tta_model = dict(
            type='DetTTAModel',
            tta_cfg=dict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=100))
    cfg.model = dict(**cfg.tta_model, module=cfg.model)
    for dataset in plain_datasets(cfg.test_dataloader.dataset):
        dataset.pipeline = cfg.get('tta_pipeline') or _mirrored(dataset.pipeline)


def _mirrored(pipeline: list[dict]) -> list[dict]:
    """A test pipeline that ends in packing the image, made to pack it and its mirror image."""
    packing = deepcopy(pipeline[-1])
    keys = tuple(packing.get('meta_keys') or
                 ()) or ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')
    packing['meta_keys'] = tuple(dict.fromkeys((*keys, 'flip', 'flip_direction')))
    flips = [dict(type='mmdet.RandomFlip', prob=prob) for prob in (1.0, 0.0)]
    return [*pipeline[:-1], dict(type='TestTimeAug', transforms=[flips, [packing]])]
