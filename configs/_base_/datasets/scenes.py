# Scenes, the generated demo set: 14 classes, images of about 180 x 230.
dataset_type = 'ScenesDataset'
data_root = 'data/scenes'
load_label = dict(type='LoadSegAnnotations')
test_pipeline = [
    dict(type='LoadImageFromFile'), load_label,
    dict(type='PackSegInputs')
]
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='TestTimeAug',
        transforms=[[
            dict(type='Resize', scale_factor=s, keep_ratio=True)
            for s in (0.75, 1.0, 1.25)
        ], [
            dict(type='RandomFlip', prob=0.0, direction='horizontal'),
            dict(type='RandomFlip', prob=1.0, direction='horizontal')
        ], [load_label], [dict(type='PackSegInputs')]])
]
train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(img_path='images/train', seg_map_path='labels/train'),
        pipeline=[]))
val_dataloader = dict(
    batch_size=1,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(img_path='images/val', seg_map_path='labels/val'),
        pipeline=test_pipeline))
test_dataloader = val_dataloader
# Pairs of classes with one look: only the scene around tells them apart.
val_evaluator = [
    dict(type='ConfusionMetric'),
    dict(
        type='PairAccuracy',
        pairs=[('road', 'floor'), ('facade', 'wall'), ('sky', 'ceiling')])
]
test_evaluator = val_evaluator
