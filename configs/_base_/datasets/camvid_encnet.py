# CamVid with EncNet's augmentations, for a schedule of 9 epochs; 480 pixels is
# the images' own longer side. The camera is level: no rotation, which for long runs
# is dict(type='RandomRotate', prob=1.0, degree=10.0) before Pad.
_base_ = './camvid.py'
train_pipeline = [
    dict(type='LoadSegImage'),
    dict(type='LoadSegAnnotations'),
    dict(type='RandomFlip', prob=0.5),
    dict(
        type='RandomResize',
        scale=(480, 480),
        ratio_range=(0.5, 2.0),
        keep_ratio=True),
    dict(type='Pad', size=(320, 240), pad_val=dict(img=0, seg=255)),
    dict(type='RandomCrop', crop_size=_base_.crop_size),
    dict(type='PackSegInputs')
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
test_modes = dict(
    chip=dict(test_cfg=dict(base_size=480, **_base_.chip_encnet)))
