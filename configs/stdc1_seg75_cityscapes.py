# STDC1-Seg75: as STDC1-Seg50, evaluated at 768 x 1536.
_base_ = './stdc1_seg50_cityscapes.py'
model = dict(test_cfg=dict(scale=0.75))
