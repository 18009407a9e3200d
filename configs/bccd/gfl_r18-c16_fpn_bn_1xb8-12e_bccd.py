_base_ = './gfl_r18-c16_fpn_mlbn_1xb8-12e_bccd.py'

model = dict(bbox_head=dict(norm_cfg=dict(_delete_=True, type='BN')))
