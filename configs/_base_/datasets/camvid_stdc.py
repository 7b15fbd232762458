# CamVid with STDC-Seg's augmentations, for a schedule of 13 epochs. Scales of
# Cityscapes start at 0.125; an image of 480 x 360 would be enlarged to the crop
# again below 0.67. Colour jitter of 0.5 costs a network 8 points of mIoU that
# has seen each of these evenly lit images 13 times; put it back for long runs:
# dict(type='ColorJitter', brightness=0.5, contrast=0.5, saturation=0.5).
_base_ = './camvid.py'
train_pipeline = [
    dict(type='LoadSegImage'),
    dict(type='LoadSegAnnotations'),
    dict(type='RandomFlip', prob=0.5),
    dict(
        type='RandomChoice',
        transforms=[[dict(type='Resize', scale_factor=i / 8, keep_ratio=True)]
                    for i in range(4, 17)]),  # 0.5 to 2
    dict(type='EnlargeToCrop', crop_size=_base_.crop_size),
    dict(type='RandomCrop', crop_size=_base_.crop_size),
    dict(type='PackSegInputs')
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
test_modes = dict(chip=dict(test_cfg=_base_.chip_stdc))
