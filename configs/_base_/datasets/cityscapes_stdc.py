# Cityscapes for STDC-Seg: crops of 512 x 1024, images at full size.
_base_ = './cityscapes.py'
crop_size = (512, 1024)
train_pipeline = [
    dict(type='LoadSegImage'),
    _base_.load_label,
    dict(type='ColorJitter', brightness=0.5, contrast=0.5, saturation=0.5),
    dict(type='RandomFlip', prob=0.5),
    dict(
        type='RandomChoice',
        transforms=[[dict(type='Resize', scale_factor=i / 8, keep_ratio=True)]
                    for i in range(1, 13)]),  # 0.125 to 1.5
    dict(type='EnlargeToCrop', crop_size=crop_size),
    dict(type='RandomCrop', crop_size=crop_size),
    dict(type='PackSegInputs')
]
test_pipeline = _base_.full_size_pipeline
scales = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
resizes = [dict(type='Resize', scale_factor=s, keep_ratio=True) for s in scales]
tta_pipeline = [
    _base_.load_image,
    dict(type='TestTimeAug', transforms=[resizes, *_base_.flip_and_pack])
]
train_dataloader = dict(
    batch_size=16,
    num_workers=8,
    sampler=dict(type='InfiniteSampler'),
    dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
test_modes = dict(
    chip=dict(
        test_cfg=dict(crop_size=1024, scales=scales, **_base_.chip_stdc)),
    slide=dict(test_cfg=dict(crop_size=crop_size, stride=(384, 768))))
