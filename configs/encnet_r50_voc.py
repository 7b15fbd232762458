# EncNet-R50 on VOC 2012 + SBD: lateral connections, 80 epochs, rate 0.001.
# The authors go on for 50 epochs on VOC alone at 0.0001.
_base_ = [
    './_base_/models/encnet_r50.py', './_base_/datasets/pascal_voc12_aug.py',
    './_base_/schedules/encnet_80e.py', './_base_/default_runtime.py'
]
model = dict(
    decode_head=dict(num_classes=21, add_lateral=True),
    auxiliary_head=dict(num_classes=21))
