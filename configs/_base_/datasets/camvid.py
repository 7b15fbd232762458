# CamVid, 480 x 360, 11 classes. Crops of 240 x 320, two thirds of a side.
_base_ = ['../loaders.py', '../test_pipelines.py', '../test_modes.py']
dataset_type = 'CamVidDataset'
data_root = 'data/camvid'
crop_size = (240, 320)
test_pipeline = _base_.full_size_pipeline
scales = (0.75, 1.0, 1.25, 1.5)
resizes = [dict(type='Resize', scale_factor=s, keep_ratio=True) for s in scales]
tta_pipeline = [
    _base_.load_image,
    dict(type='TestTimeAug', transforms=[resizes, *_base_.flip_and_pack])
]
train_dataloader = dict(
    batch_size=8,
    num_workers=2,
    sampler=dict(type='InfiniteSampler'),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(img_path='images/train', seg_map_path='labels/train'),
        pipeline=[]))
val_dataloader = dict(
    num_workers=2,
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(img_path='images/val', seg_map_path='labels/val'),
        pipeline=test_pipeline))
test_dataloader = val_dataloader
test_modes = dict(
    chip=dict(test_cfg=dict(crop_size=320, scales=scales)),
    slide=dict(test_cfg=dict(crop_size=crop_size, stride=(160, 214))))
