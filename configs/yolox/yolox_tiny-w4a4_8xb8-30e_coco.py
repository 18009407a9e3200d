_base_ = './yolox_tiny-w8a8_8xb8-30e_coco.py'

model = dict(
    quantization=dict(
        weight_quantizer=dict(bit_width=4),
        # Its learned offset covers Swish's range with all 16 codes.
        input_quantizer=dict(_delete_=True, type='mmaqd.LSQPlusActivationQuantizer', bit_width=4)))
