# Scenes with EncNet's augmentations, gentler: thin things stay visible, and
# the ground stays below.
_base_ = './scenes.py'
train_pipeline = [
    dict(type='LoadSegImage'),
    dict(type='LoadSegAnnotations'),
    dict(type='RandomFlip', prob=0.5),
    dict(
        type='RandomResize',
        scale=(232, 232),
        ratio_range=(0.75, 1.5),
        keep_ratio=True),
    dict(type='Pad', size=(160, 128), pad_val=dict(img=0, seg=255)),
    dict(type='RandomCrop', crop_size=_base_.crop_size),
    dict(type='PackSegInputs')
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
test_modes = dict(
    chip=dict(test_cfg=dict(base_size=232, **_base_.chip_encnet)))
