# What low-bit configs share, to be named after `_base_.`: their rules, one list for each head, and
# their hooks. A further rule goes behind: `rules=[*_base_.retinanet_rules, dict(pattern=...)]`.
first_conv = dict(
    pattern='backbone.conv1',
    weight_quantizer=dict(bit_width=8, normalize=False),
    input_quantizer=None)  # an 8-bit image is an integer already
# There is no BN behind the prediction convs that would undo a normalization.
prediction_convs = dict(
    weight_quantizer=dict(bit_width=8, normalize=False), input_quantizer=dict(bit_width=8))

retinanet_rules = [first_conv, dict(pattern='bbox_head.retina_*', **prediction_convs)]
fcos_rules = [first_conv, dict(pattern='bbox_head.conv_*', **prediction_convs)]
atss_rules = [first_conv, dict(pattern='bbox_head.atss_*', **prediction_convs)]  # and PAA's
gfl_rules = [first_conv, dict(pattern='bbox_head.gfl_*', **prediction_convs)]
fovea_rules = [first_conv, dict(pattern='bbox_head.conv_*', **prediction_convs)]
vfnet_rules = [
    first_conv,
    dict(pattern='bbox_head.vfnet_reg', **prediction_convs),
    dict(pattern='bbox_head.vfnet_reg_refine', **prediction_convs),
    dict(pattern='bbox_head.vfnet_cls', **prediction_convs),
    # The deformable convs have no BN behind them.
    dict(pattern='bbox_head.vfnet_*_dconv', weight_quantizer=dict(normalize=False)),
]
tood_rules = [
    first_conv,
    dict(pattern='bbox_head.tood_*', **prediction_convs),
    dict(pattern='bbox_head.cls_prob_module.2', **prediction_convs),
    dict(pattern='bbox_head.reg_offset_module.2', **prediction_convs),
    # In float: weights that are read, multiplied by an attention of each image, but never called.
    dict(pattern='*.reduction_conv.conv', weight_quantizer=None, input_quantizer=None),
]
rtmdet_rules = [
    dict(first_conv, pattern='backbone.stem.0.conv'),
    dict(pattern='bbox_head.rtm_*', **prediction_convs),
]
yolox_rules = [
    dict(first_conv, pattern='backbone.stem.conv.conv'),
    dict(pattern='bbox_head.multi_level_conv_*', **prediction_convs),
]

low_bit_hooks = [
    dict(type='mmaqd.EpochSeedHook'),
    dict(type='mmaqd.InitializeIntervalsHook'),
    dict(type='mmaqd.LogIntervalsHook'),
]
# The same numbers, sooner.
fast_low_bit_hooks = [
    *low_bit_hooks,
    dict(type='mmaqd.ChannelsLastHook'),
    dict(type='mmaqd.CompileKernelsHook'),
]
