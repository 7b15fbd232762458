# STDC2 on CamVid, otherwise as stdc1_camvid.py.
_base_ = './stdc1_camvid.py'
model = dict(backbone=dict(backbone_cfg=dict(stdc_type='STDCNet2')))
