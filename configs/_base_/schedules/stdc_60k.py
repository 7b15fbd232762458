# STDC-Seg: SGD, exponential warm-up, poly; FFM and heads learn 10 times as
# fast; norms and biases do not decay. A parameter takes the longest key that
# its name contains, and only that one, hence a key for each norm at 10x.
# 48 images a step in all, 16 on each of 3 GPUs; else --auto-scale-lr.
head = dict(lr_mult=10.)
head_norm = dict(lr_mult=10., decay_mult=0.)
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=5e-4),
    paramwise_cfg=dict(
        norm_decay_mult=0.,
        bias_decay_mult=0.,
        custom_keys={
            'decode_head': head,
            'auxiliary_head': head,
            'backbone.ffm': head,
            'decode_head.convs.0.bn': head_norm,
            'auxiliary_head.0.convs.0.bn': head_norm,
            'auxiliary_head.1.convs.0.bn': head_norm,
            'auxiliary_head.2.convs.0.bn': head_norm,
            'backbone.ffm.conv0.bn': head_norm,
        }))
auto_scale_lr = dict(enable=False, base_batch_size=48)
# Both schedulers see iteration 1000: the warm-up reaches the base rate there.
param_scheduler = [
    dict(
        type='ExponentialWarmup',
        start_factor=1e-3,
        begin=0,
        end=1001,
        by_epoch=False),
    dict(
        type='PolyLR',
        power=0.9,
        eta_min=0,
        begin=1000,
        end=60000,
        by_epoch=False)
]
train_cfg = dict(
    type='IterBasedTrainLoop', max_iters=60000, val_interval=2000)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
log_processor = dict(by_epoch=False)
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50, log_metric_by_epoch=False),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(
        type='SafeCheckpointHook',
        by_epoch=False,
        interval=2000,
        max_keep_ckpts=2,
        save_best='mIoU'),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='SegVisualizationHook'))
