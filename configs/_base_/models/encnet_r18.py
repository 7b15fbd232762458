# A small EncNet for small images: ResNet-18 without pretraining, 128 channels.
_base_ = './encnet_r50.py'
model = dict(
    backbone=dict(depth=18, init_cfg=None),
    decode_head=dict(in_channels=[128, 256, 512], channels=128),
    auxiliary_head=dict(in_channels=256, channels=64))
