_base_ = __import__('mmaqd').upstream_config_path('rtmdet/rtmdet_tiny_8xb32-300e_coco.py')

# As _base_/mmaqd_runtime.py has it, which can't stand beside a config with hooks.
custom_imports = dict(imports=['mmaqd'], allow_failed_imports=False)
randomness = dict(seed=0)
custom_hooks = [*_base_.custom_hooks, dict(type='mmaqd.EpochSeedHook')]

# Upstream's model, in whose head each level has BN of its own behind shared convs.
model = dict(
    # Integer mean and std 1: the first conv sees integers and needs no input quantizer.
    data_preprocessor=dict(mean=[104, 116, 124], std=[1, 1, 1]),
    backbone=dict(
        init_cfg=dict(
            type='mmaqd.FoldInputStd',  # the checkpoint expects an image divided by this std
            std=[57.375, 57.12, 58.395],
            conv='stem.0.conv',
            norm='stem.0.bn')))

train_dataloader = dict(persistent_workers=False, worker_init_fn=dict(type='mmaqd.seed_worker'))
# Upstream leaves the 16 of schedule_1x.py here: --auto-scale-lr would make 16 times as much of its
# learning rate.
auto_scale_lr = dict(base_batch_size=256)
