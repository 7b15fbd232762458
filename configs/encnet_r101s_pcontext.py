# EncNet-R101s, otherwise as encnet_r50s_pcontext.py.
_base_ = './encnet_r50s_pcontext.py'
model = dict(
    backbone=dict(
        depth=101, init_cfg=dict(checkpoint='pretrained/resnet101s.pth')))
