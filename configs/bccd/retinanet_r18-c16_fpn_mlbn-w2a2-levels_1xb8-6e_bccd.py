_base_ = './retinanet_r18-c16_fpn_mlbn-w4a4_1xb8-6e_bccd.py'

model = dict(
    quantization=dict(
        weight_quantizer=dict(bit_width=2, center=True),
        input_quantizer=dict(bit_width=2),
        # The inputs of the head's convs have an interval for each pyramid level.
        rules=[
            _base_.model.quantization.rules[0],
            dict(
                pattern='bbox_head.*_convs.*',
                input_quantizer=dict(
                    type='mmaqd.MultiLevelQuantizer',
                    num_levels=5,
                    quantizer=dict(type='mmaqd.LIQActivationQuantizer', bit_width=2))),
            dict(
                pattern='bbox_head.retina_*',
                weight_quantizer=dict(
                    type='mmaqd.LIQWeightQuantizer',
                    bit_width=8,
                    normalize=False,
                    gradient_factor=False),
                input_quantizer=dict(
                    type='mmaqd.MultiLevelQuantizer',
                    num_levels=5,
                    quantizer=dict(type='mmaqd.LIQActivationQuantizer', bit_width=8))),
        ]))
