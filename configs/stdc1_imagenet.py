# STDC1 as a classifier of ImageNet, 224 x 224. The schedule and the label
# smoothing are ours, not the authors'.
_base_ = [
    './_base_/models/stdc1_classifier.py', './_base_/datasets/imagenet.py',
    './_base_/schedules/imagenet_300e.py', './_base_/default_runtime.py'
]
model = dict(label_smooth=0.1)
