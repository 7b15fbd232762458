# STDC2-Seg75, otherwise as stdc1_seg75_cityscapes.py.
_base_ = './stdc1_seg75_cityscapes.py'
model = dict(backbone=dict(backbone_cfg=dict(stdc_type='STDCNet2')))
