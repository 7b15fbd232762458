# EncNet-R18 on Scenes: 700 iterations of 8 crops, minutes on two CPU cores.
# Output stride 16 and a rate of 0.03, because the schedule is short and starts
# from random weights: at stride 8 and 0.01 the time runs out before the network
# has learned that the scene decides.
_base_ = [
    './_base_/models/encnet_r18.py', './_base_/datasets/scenes_encnet.py',
    './_base_/schedules/encnet_iters.py', './_base_/default_runtime.py'
]
model = dict(
    backbone=dict(strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2)),
    decode_head=dict(num_classes=14),
    auxiliary_head=dict(num_classes=14))
optim_wrapper = dict(optimizer=dict(lr=0.03))
param_scheduler = [
    dict(type='PolyLR', power=0.9, eta_min=0, begin=0, end=700, by_epoch=False)
]
train_cfg = dict(max_iters=700, val_interval=700)
default_hooks = dict(checkpoint=dict(interval=700))
