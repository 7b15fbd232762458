# STDC1 on CamVid from random weights. 600 iterations of 8 crops are 13 epochs,
# what two CPU cores finish within half an hour; on a GPU pass --max-iters 10000,
# the paper's. The backbone's norms learn here: no checkpoint set them.
_base_ = [
    './_base_/models/stdc1.py', './_base_/datasets/camvid_stdc.py',
    './_base_/schedules/stdc_iters.py', './_base_/default_runtime.py'
]
auxiliary = dict(**_base_.auxiliary)
auxiliary['num_classes'] = 11
model = dict(
    backbone=dict(backbone_cfg=dict(norm_cfg=dict(requires_grad=True))),
    decode_head=dict(num_classes=11),
    auxiliary_head=[
        dict(in_index=2, **auxiliary),
        dict(in_index=1, **auxiliary), _base_.detail
    ])
