# Copy this folder, edit the lines down to the next rule, and train: docs/own_data.md.
#
# COCO: {data_root}annotations/{train,val}.json and {data_root}images/
# VOC:  {data_root}ImageSets/Main/{train,val}.txt, {data_root}Annotations/*.xml and
#       {data_root}JPEGImages/*.jpg
annotations = 'coco'  # or 'voc'
data_root = 'data/own/'
classes = ('cat', 'dog')  # as the annotations name them; COCO: in the order of its categories
scale = (640, 480)  # images are shrunk or enlarged to fit into this width and height
batch_size = 4  # images a process; few bits want many small batches
max_epochs = 24  # in float; as many as it takes until AP stops rising
low_bit_epochs = 12
backbone_checkpoint = 'torchvision://resnet18'  # downloaded; None to train from scratch
channels = 64  # of the first stage; 16, without a checkpoint, trains on CPU cores
# ------------------------------------------------------------------------------------------------

if annotations == 'coco':
    _own = dict(type='CocoDataset', data_prefix=dict(img='images/'))
    _file = 'annotations/{}.json'
    _evaluator = dict(type='CocoMetric', ann_file=data_root + 'annotations/val.json')
elif annotations == 'voc':
    _own = dict(type='XMLDataset', data_prefix=dict(sub_data_root=''))
    _file = 'ImageSets/Main/{}.txt'
    _evaluator = dict(type='CocoMetric')  # reads the boxes from `instances`, which are packed below
else:
    raise ValueError(f"annotations: expected 'coco' or 'voc', but got {annotations!r}.")

_load = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True)]
_resize = dict(type='Resize', scale=scale, keep_ratio=True)
_own.update(data_root=data_root, metainfo=dict(classes=classes))
train_dataloader = dict(
    batch_size=batch_size,
    num_workers=2,
    persistent_workers=False,
    worker_init_fn=dict(type='mmaqd.seed_worker'),
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        ann_file=_file.format('train'),
        pipeline=[*_load, _resize,
                  dict(type='RandomFlip', prob=0.5),
                  dict(type='PackDetInputs')],
        **_own))
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=False,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        ann_file=_file.format('val'),
        test_mode=True,
        pipeline=[
            _load[0], _resize, _load[1],
            dict(
                type='PackDetInputs',
                meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor',
                           'instances'))
        ],
        **_own))
test_dataloader = val_dataloader
val_evaluator = dict(metric='bbox', **_evaluator)
test_evaluator = val_evaluator

train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=4)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=0.0001),
    clip_grad=dict(max_norm=35, norm_type=2))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(
        type='CosineAnnealingLR',
        by_epoch=True,
        begin=0,
        end=max_epochs,
        T_max=max_epochs,
        eta_min_ratio=0.01,
        convert_to_iter_based=True),
]
del _own, _file, _evaluator, _load, _resize
