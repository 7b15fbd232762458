# Cityscapes, 2048 x 1024, 19 classes.
_base_ = ['../loaders.py', '../test_pipelines.py', '../test_modes.py']
dataset_type = 'CityscapesDataset'
data_root = 'data/cityscapes'
train_dataloader = dict(
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(
            img_path='leftImg8bit/train', seg_map_path='gtFine/train')))
val_dataloader = dict(
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(
            img_path='leftImg8bit/val', seg_map_path='gtFine/val')))
test_dataloader = val_dataloader
