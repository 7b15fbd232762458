# EncNet-R50 on Cityscapes: 240 epochs of 16 images, rate 0.01.
_base_ = [
    './_base_/models/encnet_r50.py', './_base_/datasets/cityscapes_encnet.py',
    './_base_/schedules/encnet_120e.py', './_base_/default_runtime.py'
]
model = dict(
    decode_head=dict(num_classes=19), auxiliary_head=dict(num_classes=19))
param_scheduler = [
    dict(
        type='PolyLR',
        power=0.9,
        eta_min=0,
        begin=0,
        end=240,
        by_epoch=True,
        convert_to_iter_based=True)
]
train_cfg = dict(max_epochs=240)
