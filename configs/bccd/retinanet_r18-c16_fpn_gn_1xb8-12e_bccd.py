_base_ = './retinanet_r18-c16_fpn_mlbn_1xb8-12e_bccd.py'

# Eight channels a group, as 32 groups of 256 channels have.
model = dict(bbox_head=dict(norm_cfg=dict(_delete_=True, type='GN', num_groups=8)))
