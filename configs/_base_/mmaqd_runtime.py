# Everything that any config of mmaqd needs beyond MMDetection's own runtime. It repeats no key of
# the upstream configs, so that it can stand beside them in a `_base_` list.
custom_imports = dict(imports=['mmaqd'], allow_failed_imports=False)

# A fixed seed, drawn anew for each epoch: a resumed run sees the same batches as one that never
# stopped. The train dataloader does its part with `worker_init_fn` and `persistent_workers=False`.
randomness = dict(seed=0)
custom_hooks = [dict(type='mmaqd.EpochSeedHook')]
