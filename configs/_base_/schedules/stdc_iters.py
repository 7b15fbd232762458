# The recipe of STDC-Seg for small data sets: 600 iterations, 50 to warm up.
_base_ = './stdc_60k.py'
auto_scale_lr = dict(base_batch_size=8)
param_scheduler = [
    dict(
        type='ExponentialWarmup',
        start_factor=1e-3,
        begin=0,
        end=51,
        by_epoch=False),
    dict(
        type='PolyLR', power=0.9, eta_min=0, begin=50, end=600, by_epoch=False)
]
train_cfg = dict(max_iters=600, val_interval=600)
default_hooks = dict(checkpoint=dict(interval=100))
