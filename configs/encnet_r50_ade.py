# EncNet-R50 on ADE20K: 120 epochs of 16 images, rate 0.01.
_base_ = [
    './_base_/models/encnet_r50.py', './_base_/datasets/ade20k.py',
    './_base_/schedules/encnet_120e.py', './_base_/default_runtime.py'
]
