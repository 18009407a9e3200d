_base_ = './rtmdet_tiny_mlbn_12e_bccd.py'

model = dict(bbox_head=dict(norm_cfg=dict(_delete_=True, type='BN')))
