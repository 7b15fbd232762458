# The recipe of EncNet counted in iterations, for small data sets.
_base_ = './encnet_120e.py'
auto_scale_lr = dict(base_batch_size=8)
param_scheduler = [
    dict(type='PolyLR', power=0.9, eta_min=0, begin=0, end=400, by_epoch=False)
]
train_cfg = dict(
    _delete_=True, type='IterBasedTrainLoop', max_iters=400, val_interval=400)
log_processor = dict(by_epoch=False)
default_hooks = dict(
    logger=dict(log_metric_by_epoch=False),
    checkpoint=dict(by_epoch=False, interval=100))
