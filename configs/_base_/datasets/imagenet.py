# ImageNet 2012: crops of 224 x 224. Pillow resizes, because it averages where it
# shrinks an image, as the loaders do that published figures come from.
_base_ = '../loaders.py'
dataset_type = 'ImageFolderDataset'
data_root = 'data/imagenet'
train_pipeline = [
    dict(type='LoadSegImage'),
    dict(type='RandomResizedCrop', size=224, backend='pillow'),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackClassInputs')
]
test_pipeline = [
    dict(type='LoadSegImage'),
    # The shorter side becomes 256; the other number only bounds the longer.
    dict(type='Resize', scale=(256, 100000), keep_ratio=True, backend='pillow'),
    dict(type='CenterCrop', crop_size=224),
    dict(type='PackClassInputs')
]
train_dataloader = dict(
    batch_size=32,
    num_workers=8,
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(img_path='train'),
        pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=32,
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(img_path='val'),
        pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(type='ClassAccuracy')
test_evaluator = val_evaluator
