_base_ = './retinanet_r18_fpn_mlbn_1xb8-12e_bccd.py'

# A quarter of the channels: a run takes a few minutes of one core.
model = dict(
    backbone=dict(base_channels=16),
    neck=dict(in_channels=[16, 32, 64, 128], out_channels=64),
    bbox_head=dict(in_channels=64, feat_channels=64))
