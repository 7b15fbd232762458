# STDC1 on Scenes: 600 iterations of 8 crops, minutes on two CPU cores. The
# backbone's norms learn here: there is no checkpoint to keep.
_base_ = [
    './_base_/models/stdc1.py', './_base_/datasets/scenes_stdc.py',
    './_base_/schedules/stdc_iters.py', './_base_/default_runtime.py'
]
auxiliary = dict(**_base_.auxiliary)
auxiliary['num_classes'] = 14
model = dict(
    backbone=dict(backbone_cfg=dict(norm_cfg=dict(requires_grad=True))),
    decode_head=dict(num_classes=14),
    auxiliary_head=[
        dict(in_index=2, **auxiliary),
        dict(in_index=1, **auxiliary), _base_.detail
    ])
