# A baseline that sees 15 x 15 pixels: what Scenes gives away without context.
_base_ = [
    './_base_/models/local.py', './_base_/datasets/scenes_encnet.py',
    './_base_/schedules/encnet_iters.py', './_base_/default_runtime.py'
]
param_scheduler = [
    dict(type='PolyLR', power=0.9, eta_min=0, begin=0, end=200, by_epoch=False)
]
train_cfg = dict(max_iters=200, val_interval=200)
default_hooks = dict(checkpoint=dict(interval=200))
