# EncNet's recipe for PASCAL Context and VOC: 80 epochs, rate 0.001.
_base_ = './encnet_120e.py'
optim_wrapper = dict(optimizer=dict(lr=0.001))
param_scheduler = [
    dict(
        type='PolyLR',
        power=0.9,
        eta_min=0,
        begin=0,
        end=80,
        by_epoch=True,
        convert_to_iter_based=True)
]
train_cfg = dict(max_epochs=80)
