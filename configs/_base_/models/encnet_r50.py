# EncNet (CVPR 2018) on ResNet-50 with output stride 8.
_base_ = './segmentor.py'
norm_cfg = dict(type='SyncBN', requires_grad=True)
cross_entropy = dict(
    type='CrossEntropyLoss', avg_non_ignore=True, loss_weight=1.0)
model = dict(
    backbone=dict(
        type='ResNetV1c',
        depth=50,
        num_stages=4,
        out_indices=(0, 1, 2, 3),
        dilations=(1, 1, 2, 4),
        strides=(1, 2, 1, 1),
        norm_cfg=norm_cfg,
        norm_eval=False,
        style='pytorch',
        contract_dilation=True,
        init_cfg=dict(
            type='Pretrained', checkpoint='open-mmlab://resnet50_v1c')),
    decode_head=dict(
        type='EncHead',
        in_channels=[512, 1024, 2048],
        in_index=(1, 2, 3),
        channels=512,
        num_codes=32,
        use_se_loss=True,
        add_lateral=False,
        dropout_ratio=0.1,
        dropout_type='Dropout',
        num_classes=150,
        norm_cfg=norm_cfg,
        align_corners=True,
        loss_decode=cross_entropy,
        loss_se_decode=dict(type='SemanticEncodingLoss', loss_weight=0.2)),
    auxiliary_head=dict(
        type='SegHead',
        in_channels=1024,
        in_index=2,
        channels=256,
        bias=True,
        dropout_ratio=0.1,
        num_classes=150,
        norm_cfg=norm_cfg,
        align_corners=True,
        loss_decode=dict(
            type='CrossEntropyLoss', avg_non_ignore=True, loss_weight=0.4)))
