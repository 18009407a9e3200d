_base_ = ['./retinanet_r18_fpn_mlbn_demo_shapes.py', '../_base_/low_bit.py']

model = dict(
    type='mmaqd.QuantizedDetector',
    detector='RetinaNet',
    quantization=dict(
        weight_quantizer=dict(type='mmaqd.LIQWeightQuantizer', bit_width=4),
        input_quantizer=dict(type='mmaqd.LIQActivationQuantizer', bit_width=4),
        rules=_base_.retinanet_rules))

max_epochs = 5
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
custom_hooks = _base_.low_bit_hooks
optim_wrapper = dict(optimizer=dict(lr=0.0003))
param_scheduler = [
    dict(
        type='CosineAnnealingLR',
        by_epoch=True,
        begin=0,
        end=max_epochs,
        eta_min_ratio=0.01,
        convert_to_iter_based=True),
]
load_from = 'work_dirs/retinanet_r18_fpn_mlbn_demo_shapes/epoch_11.pth'
