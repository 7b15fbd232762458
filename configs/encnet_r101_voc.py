# EncNet-R101, otherwise as encnet_r50_voc.py.
_base_ = './encnet_r50_voc.py'
model = dict(
    backbone=dict(
        depth=101,
        init_cfg=dict(
            type='Pretrained', checkpoint='open-mmlab://resnet101_v1c')))
