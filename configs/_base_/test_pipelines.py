# Pipelines of evaluation, and the parts that a data set builds its own from.
load_image = dict(type='LoadImageFromFile')
load_label = dict(type='LoadSegAnnotations')
pack = dict(type='PackSegInputs')
full_size_pipeline = [load_image, load_label, pack]
# TestTimeAug applies these after the scales.
flip_and_pack = [[
    dict(type='RandomFlip', prob=0.0, direction='horizontal'),
    dict(type='RandomFlip', prob=1.0, direction='horizontal')
], [load_label], [pack]]
