# STDC2 as a classifier, otherwise as stdc1_imagenet.py.
_base_ = './stdc1_imagenet.py'
model = dict(backbone=dict(stdc_type='STDCNet2'))
