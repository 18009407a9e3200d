# What distilled models learn from their teacher: docs/recipes.md.
neck_and_output_losses = [
    dict(type='mmaqd.FeatureDistillationLoss', module='neck', loss_weight=1.0),
    dict(type='mmaqd.OutputDistillationLoss', loss_weight=2.0),
]
# The last features of the head's branches too, as the full-size BCCD models.
distillation_losses = [
    dict(type='mmaqd.FeatureDistillationLoss', module='neck', loss_weight=1.0),
    dict(type='mmaqd.FeatureDistillationLoss', module='bbox_head.cls_convs.3'),
    dict(type='mmaqd.FeatureDistillationLoss', module='bbox_head.reg_convs.3'),
    dict(type='mmaqd.OutputDistillationLoss', loss_weight=2.0),
]
