_base_ = './gfl_r18-c16_fpn_mlbn-w2a2_1xb8-6e_bccd.py'

model = dict(bbox_head=dict(norm_cfg=dict(_delete_=True, type='BN')))
load_from = 'work_dirs/gfl_r18-c16_fpn_bn_1xb8-12e_bccd/epoch_12.pth'
