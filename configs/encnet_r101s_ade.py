# EncNet on the authors' ResNet-101s, otherwise as encnet_r50s_ade.py.
_base_ = './encnet_r50s_ade.py'
model = dict(
    backbone=dict(
        depth=101, init_cfg=dict(checkpoint='pretrained/resnet101s.pth')))
