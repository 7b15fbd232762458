# All segmentation networks normalise with ImageNet's statistics and are evaluated on
# whole images.
model = dict(
    type='ChipEncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
        size_divisor=1),  # the pipeline has padded already
    train_cfg=dict(),
    test_cfg=dict(mode='whole'))
