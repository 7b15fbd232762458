# Cityscapes for EncNet.
# The authors' script defaults to 520 and 480 pixels, sizes of photographs of
# 500 pixels. These images have 2048, and the authors' test scales for them,
# 0.75 to 2.25, reach that size only from a base of about 1024, hence 1024/768.
_base_ = './cityscapes.py'
base_size, crop_size = 1024, (768, 768)
scales = (0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.25)
train_pipeline = [
    dict(type='LoadSegImage'),
    dict(type='LoadSegAnnotations'),
    dict(type='RandomFlip', prob=0.5),
    dict(
        type='RandomResize',
        scale=(base_size, base_size),
        ratio_range=(0.5, 2.0),
        keep_ratio=True),
    dict(type='RandomRotate', prob=1.0, degree=10.0),
    dict(type='Pad', size=crop_size, pad_val=dict(img=0, seg=255)),
    dict(type='RandomCrop', crop_size=crop_size),
    dict(type='PackSegInputs')
]
test_pipeline = [
    _base_.load_image,
    dict(type='Resize', scale=(base_size, base_size), keep_ratio=True),
    _base_.load_label,  # after Resize: scored at full size
    _base_.pack
]
resizes = [
    dict(
        type='Resize',
        scale=(int(base_size * s), int(base_size * s)),
        keep_ratio=True) for s in scales
]
tta_pipeline = [
    _base_.load_image,
    dict(type='TestTimeAug', transforms=[resizes, *_base_.flip_and_pack])
]
train_dataloader = dict(batch_size=4, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
test_modes = dict(
    chip=dict(
        pipeline=_base_.full_size_pipeline,
        test_cfg=dict(
            base_size=base_size,
            crop_size=crop_size[0],
            scales=scales,
            **_base_.chip_encnet)),
    slide=dict(test_cfg=dict(crop_size=crop_size, stride=(512, 512))))
