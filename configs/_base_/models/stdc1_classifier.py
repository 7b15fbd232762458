# STDC1 with the authors' classification head, for ImageNet.
model = dict(
    type='STDCClassifier',
    data_preprocessor=dict(
        type='ImgDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True),
    backbone=dict(
        type='STDCNet',
        stdc_type='STDCNet1',
        bottleneck_type='cat',
        norm_cfg=dict(type='SyncBN', requires_grad=True),
        with_final_conv=True,
        out_strides=(32, )),
    num_classes=1000,
    dropout_ratio=0.2)
