_base_ = ['./retinanet_r18-c16_fpn_mlbn_1xb8-12e_bccd.py', '../_base_/low_bit.py']

model = dict(
    type='mmaqd.QuantizedDetector',
    detector='RetinaNet',
    quantization=dict(
        # The weights keep their mean, which was better at 3 and 4 bits: docs/recipes.md.
        # No gradient factor, here and below, as the small rows of the accuracy study were trained.
        weight_quantizer=dict(
            type='mmaqd.LIQWeightQuantizer', bit_width=4, center=False, gradient_factor=False),
        input_quantizer=dict(type='mmaqd.LIQActivationQuantizer', bit_width=4),
        # With types, so that another method above leaves the first and the last convs as they are.
        rules=[
            dict(
                pattern='backbone.conv1',
                weight_quantizer=dict(
                    type='mmaqd.LIQWeightQuantizer',
                    bit_width=8,
                    normalize=False,
                    gradient_factor=False),
                input_quantizer=None),  # an 8-bit image is an integer already
            dict(
                pattern='bbox_head.retina_*',
                weight_quantizer=dict(
                    type='mmaqd.LIQWeightQuantizer',
                    bit_width=8,
                    normalize=False,
                    gradient_factor=False),
                input_quantizer=dict(type='mmaqd.LIQActivationQuantizer', bit_width=8)),
        ]))

custom_hooks = _base_.fast_low_bit_hooks
max_epochs = 6
train_cfg = dict(max_epochs=max_epochs)
param_scheduler = _base_.six_epochs
load_from = 'work_dirs/retinanet_r18-c16_fpn_mlbn_1xb8-12e_bccd/epoch_12.pth'
