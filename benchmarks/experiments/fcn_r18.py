# EncNet-R18 without the context encoding module: a 3 x 3 convolution, dropout and the
# convolution that gives the logits.
_base_ = '../../configs/encnet_r18_camvid.py'
head = _base_.model.decode_head
model = dict(
    decode_head=dict(
        _delete_=True,
        type='SegHead',
        in_channels=512,
        in_index=3,
        channels=128,
        bias=True,
        dropout_ratio=0.1,
        num_classes=11,
        norm_cfg=head.norm_cfg,
        align_corners=True,
        loss_decode=head.loss_decode))
