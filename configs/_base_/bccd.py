# BCCD: 364 microscope images of blood cells, 3 classes, at 320 x 240 pixels. Training uses trainval
# and the test split is looked at once, by tools/test.py, so there is no validation while training.
# Link the data to data/bccd or name its folder in the environment variable MMAQD_BCCD.
data_root = __import__('os').path.join('{{$MMAQD_BCCD:data/bccd/}}', '')
metainfo = dict(classes=('RBC', 'WBC', 'Platelets'))

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=(320, 240), keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(320, 240), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]

train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=False,
    worker_init_fn=dict(type='mmaqd.seed_worker'),
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='CocoDataset',
        data_root=data_root,
        ann_file='annotations/trainval.json',
        data_prefix=dict(img='images/'),
        metainfo=metainfo,
        pipeline=train_pipeline))
test_dataloader = dict(
    batch_size=1,
    num_workers=1,
    persistent_workers=False,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='CocoDataset',
        data_root=data_root,
        ann_file='annotations/test.json',
        data_prefix=dict(img='images/'),
        metainfo=metainfo,
        test_mode=True,
        pipeline=test_pipeline))
test_evaluator = dict(
    type='CocoMetric', ann_file=data_root + 'annotations/test.json', metric='bbox')

max_epochs = 12
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs)
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.02, momentum=0.9, weight_decay=0.0001),
    clip_grad=dict(max_norm=35, norm_type=2))
warmup = dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50)
cosine = dict(
    type='CosineAnnealingLR',
    by_epoch=True,
    begin=0,
    eta_min_ratio=0.01,
    convert_to_iter_based=True)
param_scheduler = [warmup, dict(end=max_epochs, T_max=max_epochs, **cosine)]
# Six epochs more: of low-bit models, and of the float models that they are compared with.
six_epochs = [warmup, dict(end=6, T_max=6, **cosine)]
