# EncNet on the authors' ResNet-50s, a deep stem of 64, 64 and 128 channels. Its
# ImageNet weights come from tools/convert/pytorch_encoding.py; name the file with
# --cfg-options model.backbone.init_cfg.checkpoint=FILE.
_base_ = './encnet_r50_ade.py'
model = dict(
    backbone=dict(
        stem_channels=128,
        init_cfg=dict(type='Pretrained', checkpoint='pretrained/resnet50s.pth')))
