# STDC1-Seg (CVPR 2021): detail guidance on stride 8, OHEM on all three heads.
_base_ = './segmentor.py'
norm_cfg = dict(type='SyncBN', requires_grad=True)
# The authors leave the backbone's norms out of the optimizer: weight 1 and
# bias 0 (or what the checkpoint says) stay, the statistics still move.
backbone_norm_cfg = dict(type='SyncBN', requires_grad=False)
ohem = dict(type='OhemCELoss', thresh=0.7, min_kept=1 / 16)
auxiliary = dict(
    type='SegHead',
    in_channels=128,
    channels=64,
    num_classes=19,
    norm_cfg=norm_cfg,
    align_corners=True,
    loss_decode=ohem)
detail = dict(
    type='DetailHead',
    in_channels=256,
    in_index=0,
    norm_cfg=norm_cfg,
    align_corners=True)
model = dict(
    backbone=dict(
        type='STDCContextPathNet',
        backbone_cfg=dict(
            type='STDCNet',
            stdc_type='STDCNet1',
            bottleneck_type='cat',
            norm_cfg=backbone_norm_cfg),
        last_in_channels=(1024, 512),
        out_channels=128,
        ffm_cfg=dict(in_channels=384, out_channels=256, scale_factor=4),
        norm_cfg=norm_cfg),
    decode_head=dict(
        type='SegHead',
        in_channels=256,
        channels=256,
        in_index=3,
        num_classes=19,
        norm_cfg=norm_cfg,
        align_corners=True,
        loss_decode=ohem),
    auxiliary_head=[
        dict(in_index=2, **auxiliary),  # context at stride 8
        dict(in_index=1, **auxiliary),  # context at stride 16
        detail,
    ])
