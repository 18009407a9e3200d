_base_ = './rtmdet_tiny-w8a8_1xb8-6e_bccd.py'

model = dict(
    quantization=dict(
        weight_quantizer=dict(bit_width=4),
        # Its learned offset covers SiLU's range with all 16 codes.
        input_quantizer=dict(_delete_=True, type='mmaqd.LSQPlusActivationQuantizer', bit_width=4)))
