# EncNet-R50 on COCO-Stuff 164k, with the authors' COCO schedule: 30 epochs,
# rate 0.004. (Theirs has the 21 classes of VOC, to pretrain for VOC.)
_base_ = [
    './_base_/models/encnet_r50.py', './_base_/datasets/coco_stuff164k.py',
    './_base_/schedules/encnet_120e.py', './_base_/default_runtime.py'
]
model = dict(
    decode_head=dict(num_classes=171), auxiliary_head=dict(num_classes=171))
optim_wrapper = dict(optimizer=dict(lr=0.004))
param_scheduler = [
    dict(
        type='PolyLR',
        power=0.9,
        eta_min=0,
        begin=0,
        end=30,
        by_epoch=True,
        convert_to_iter_based=True)
]
train_cfg = dict(max_epochs=30, val_interval=5)
