# STDC1-Seg50 on Cityscapes: 60k iterations of 3 x 16 images. Evaluation
# resizes the image by 0.5 and scores at full resolution.
# Start from ImageNet weights with --cfg-options
# model.backbone.backbone_cfg.init_cfg.type=Pretrained and
# model.backbone.backbone_cfg.init_cfg.checkpoint=FILE.
_base_ = [
    './_base_/models/stdc1.py', './_base_/datasets/cityscapes_stdc.py',
    './_base_/schedules/stdc_60k.py', './_base_/default_runtime.py'
]
model = dict(test_cfg=dict(scale=0.5))
