# EncNet-R50 on PASCAL Context: lateral connections, 80 epochs, rate 0.001.
_base_ = [
    './_base_/models/encnet_r50.py', './_base_/datasets/pascal_context_59.py',
    './_base_/schedules/encnet_80e.py', './_base_/default_runtime.py'
]
model = dict(
    decode_head=dict(num_classes=59, add_lateral=True),
    auxiliary_head=dict(num_classes=59))
