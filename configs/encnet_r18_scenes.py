# EncNet-R18 on Scenes: 300 iterations of 8 crops, minutes on two CPU cores.
_base_ = [
    './_base_/models/encnet_r18.py', './_base_/datasets/scenes_encnet.py',
    './_base_/schedules/encnet_iters.py', './_base_/default_runtime.py'
]
model = dict(
    decode_head=dict(num_classes=14), auxiliary_head=dict(num_classes=14))
param_scheduler = [
    dict(type='PolyLR', power=0.9, eta_min=0, begin=0, end=300, by_epoch=False)
]
train_cfg = dict(max_iters=300, val_interval=300)
default_hooks = dict(checkpoint=dict(interval=300))
