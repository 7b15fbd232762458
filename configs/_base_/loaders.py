# Training on shuffled full batches, evaluation of one image at a time. A data set
# adds where it lies, its batch size and its pipelines.
train_dataloader = dict(
    num_workers=4,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True))
val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False))
test_dataloader = val_dataloader
val_evaluator = dict(type='ConfusionMetric')
test_evaluator = val_evaluator
