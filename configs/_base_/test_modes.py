# tools/test.py --mode chip: the authors' overlapping crops; --mode slide: MMSeg's.
# A data set adds sizes and scales.
chip_encnet = dict(
    mode='chip', protocol='encnet', stride_rate=2 / 3, flip=True)
chip_stdc = dict(mode='chip', protocol='stdc', stride_rate=5 / 6, flip=True)
test_modes = dict(slide=dict(test_cfg=dict(mode='slide')))
