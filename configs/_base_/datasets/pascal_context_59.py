# PASCAL Context, 59 classes without background.
_base_ = './photos_encnet.py'
train_dataloader = dict(dataset=dict(
    type='PascalContextDataset59',
    data_root='data/VOCdevkit/VOC2010',
    ann_file='ImageSets/SegmentationContext/train.txt',
    data_prefix=dict(
        img_path='JPEGImages', seg_map_path='SegmentationClassContext')))
val_dataloader = dict(dataset=dict(
    type='PascalContextDataset59',
    data_root='data/VOCdevkit/VOC2010',
    ann_file='ImageSets/SegmentationContext/val.txt',
    data_prefix=dict(
        img_path='JPEGImages', seg_map_path='SegmentationClassContext')))
test_dataloader = val_dataloader
