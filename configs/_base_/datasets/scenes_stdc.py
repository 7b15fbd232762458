# Scenes with STDC-Seg's augmentations, gentler: thin things stay visible.
_base_ = './scenes.py'
train_pipeline = [
    dict(type='LoadSegImage'),
    dict(type='LoadSegAnnotations'),
    dict(type='ColorJitter', brightness=0.5, contrast=0.5, saturation=0.5),
    dict(type='RandomFlip', prob=0.5),
    dict(
        type='RandomChoice',
        transforms=[[dict(type='Resize', scale_factor=i / 8, keep_ratio=True)]
                    for i in range(6, 13)]),  # 0.75 to 1.5
    dict(type='EnlargeToCrop', crop_size=_base_.crop_size),
    dict(type='RandomCrop', crop_size=_base_.crop_size),
    dict(type='PackSegInputs')
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
test_modes = dict(chip=dict(test_cfg=_base_.chip_stdc))
