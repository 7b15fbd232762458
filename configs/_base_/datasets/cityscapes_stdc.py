# Cityscapes for STDC-Seg: crops of 512 x 1024, images at full size.
dataset_type = 'CityscapesDataset'
data_root = 'data/cityscapes'
crop_size = (512, 1024)
load_label = dict(type='LoadSegAnnotations')
train_pipeline = [
    dict(type='LoadSegImage'),
    load_label,
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
test_pipeline = [
    dict(type='LoadImageFromFile'), load_label,
    dict(type='PackSegInputs')
]
scales = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='TestTimeAug',
        transforms=[[
            dict(type='Resize', scale_factor=s, keep_ratio=True)
            for s in scales
        ], [
            dict(type='RandomFlip', prob=0.0, direction='horizontal'),
            dict(type='RandomFlip', prob=1.0, direction='horizontal')
        ], [load_label], [dict(type='PackSegInputs')]])
]
train_dataloader = dict(
    batch_size=16,
    num_workers=8,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(
            img_path='leftImg8bit/train', seg_map_path='gtFine/train'),
        pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(
            img_path='leftImg8bit/val', seg_map_path='gtFine/val'),
        pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(type='ConfusionMetric')
test_evaluator = val_evaluator
# tools/test.py --mode NAME: the authors' overlapping crops, and MMSeg's.
test_modes = dict(
    chip=dict(
        test_cfg=dict(
            mode='chip',
            protocol='stdc',
            crop_size=1024,
            stride_rate=5 / 6,
            scales=scales,
            flip=True)),
    slide=dict(
        test_cfg=dict(mode='slide', crop_size=(512, 1024), stride=(384, 768))))
