# EncNet-R50s with lateral connections, as encnet_r50_pcontext.py on the backbone
# of encnet_r50s_ade.py.
_base_ = './encnet_r50_pcontext.py'
model = dict(
    backbone=dict(
        stem_channels=128,
        init_cfg=dict(type='Pretrained', checkpoint='pretrained/resnet50s.pth')))
