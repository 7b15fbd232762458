# EncNet-R50 on CamVid from random weights, for a GPU: 4000 iterations of 8
# crops, 87 epochs, about what EncNet has on its other small sets.
_base_ = [
    './_base_/models/encnet_r50.py', './_base_/datasets/camvid_encnet.py',
    './_base_/schedules/encnet_iters.py', './_base_/default_runtime.py'
]
model = dict(
    backbone=dict(init_cfg=None),
    decode_head=dict(num_classes=11),
    auxiliary_head=dict(num_classes=11))
param_scheduler = [
    dict(type='PolyLR', power=0.9, eta_min=0, begin=0, end=4000, by_epoch=False)
]
train_cfg = dict(max_iters=4000, val_interval=1000)
default_hooks = dict(checkpoint=dict(interval=1000))
