_base_ = __import__('mmaqd').upstream_config_path('yolox/yolox_tiny_8xb8-300e_coco.py')

# As _base_/mmaqd_runtime.py has it, which can't stand beside a config with hooks.
custom_imports = dict(imports=['mmaqd'], allow_failed_imports=False)
randomness = dict(seed=0)
custom_hooks = [*_base_.custom_hooks, dict(type='mmaqd.EpochSeedHook')]

# Upstream's model as it is: its images are integers already, and each level has convs and BN of
# its own.
train_dataloader = dict(persistent_workers=False, worker_init_fn=dict(type='mmaqd.seed_worker'))
