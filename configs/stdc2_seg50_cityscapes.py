# STDC2-Seg50, otherwise as stdc1_seg50_cityscapes.py.
_base_ = './stdc1_seg50_cityscapes.py'
model = dict(backbone=dict(backbone_cfg=dict(stdc_type='STDCNet2')))
