# Seven 3x3 convolutions and a classifier; for comparison only.
_base_ = './segmentor.py'
model = dict(
    backbone=dict(type='LocalNet', channels=32, depth=7),
    decode_head=dict(
        type='SegHead',
        in_channels=32,
        channels=32,
        in_index=0,
        num_convs=0,
        bias=True,
        num_classes=14,
        align_corners=True,
        loss_decode=dict(type='CrossEntropyLoss', avg_non_ignore=True)))
