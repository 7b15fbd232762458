# COCO-Stuff 164k, 171 classes.
_base_ = './photos_encnet.py'
train_dataloader = dict(dataset=dict(
    type='COCOStuffDataset',
    data_root='data/coco_stuff164k',
    data_prefix=dict(
        img_path='images/train2017', seg_map_path='annotations/train2017')))
val_dataloader = dict(dataset=dict(
    type='COCOStuffDataset',
    data_root='data/coco_stuff164k',
    data_prefix=dict(
        img_path='images/val2017', seg_map_path='annotations/val2017')))
test_dataloader = val_dataloader
