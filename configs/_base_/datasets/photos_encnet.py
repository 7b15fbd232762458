# EncNet's augmentations and test protocols for photographs of about 500 pixels:
# 520 pixels on the longer side at scale 1, crops of 480. A data set adds where
# it lies.
base_size, crop_size = 520, (480, 480)
train_pipeline = [
    dict(type='LoadSegImage'),
    dict(type='LoadSegAnnotations'),
    dict(type='RandomFlip', prob=0.5),
    dict(
        type='RandomResize',
        scale=(base_size, base_size),
        ratio_range=(0.5, 2.0),
        keep_ratio=True),
    dict(type='RandomRotate', prob=1.0, degree=10.0),
    dict(type='Pad', size=crop_size, pad_val=dict(img=0, seg=255)),
    dict(type='RandomCrop', crop_size=crop_size),
    dict(type='PackSegInputs')
]
load_label = dict(type='LoadSegAnnotations')
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(base_size, base_size), keep_ratio=True),
    load_label,  # after Resize: scored at full size
    dict(type='PackSegInputs')
]
full_size_pipeline = [
    dict(type='LoadImageFromFile'), load_label,
    dict(type='PackSegInputs')
]
scales = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='TestTimeAug',
        transforms=[[
            dict(
                type='Resize',
                scale=(int(base_size * s), int(base_size * s)),
                keep_ratio=True) for s in scales
        ], [
            dict(type='RandomFlip', prob=0.0, direction='horizontal'),
            dict(type='RandomFlip', prob=1.0, direction='horizontal')
        ], [load_label], [dict(type='PackSegInputs')]])
]
train_dataloader = dict(
    batch_size=4,
    num_workers=4,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(type='ConfusionMetric')
test_evaluator = val_evaluator
# tools/test.py --mode NAME: the authors' overlapping crops, and MMSeg's.
test_modes = dict(
    chip=dict(
        pipeline=full_size_pipeline,
        test_cfg=dict(
            mode='chip',
            protocol='encnet',
            base_size=base_size,
            crop_size=crop_size[0],
            stride_rate=2 / 3,
            scales=scales,
            flip=True)),
    slide=dict(
        test_cfg=dict(
            mode='slide',
            crop_size=crop_size,
            stride=(320, 320))))
