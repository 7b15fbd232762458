# Scenes, the generated demo set: 14 classes, images of about 180 x 230.
_base_ = ['../loaders.py', '../test_pipelines.py', '../test_modes.py']
dataset_type = 'ScenesDataset'
data_root = 'data/scenes'
crop_size = (128, 160)
test_pipeline = _base_.full_size_pipeline
scales = (0.75, 1.0, 1.25)
resizes = [dict(type='Resize', scale_factor=s, keep_ratio=True) for s in scales]
tta_pipeline = [
    _base_.load_image,
    dict(type='TestTimeAug', transforms=[resizes, *_base_.flip_and_pack])
]
train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    sampler=dict(type='InfiniteSampler'),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(img_path='images/train', seg_map_path='labels/train'),
        pipeline=[]))
val_dataloader = dict(
    num_workers=1,
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
test_modes = dict(
    chip=dict(test_cfg=dict(crop_size=160, scales=scales)),
    slide=dict(test_cfg=dict(crop_size=crop_size, stride=(85, 107))))
