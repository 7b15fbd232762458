# STDC1 without detail guidance.
_base_ = '../../configs/stdc1_camvid.py'
model = dict(auxiliary_head=_base_.model.auxiliary_head[:2])
