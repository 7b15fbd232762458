# Seven 3x3 convolutions and a classifier; for comparison only.
model = dict(
    type='ChipEncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
        size_divisor=1),
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
        loss_decode=dict(type='CrossEntropyLoss', avg_non_ignore=True)),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'))
