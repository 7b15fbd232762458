# STDC1 with neither OHEM nor detail guidance.
_base_ = './stdc1_no_ohem.py'
model = dict(auxiliary_head=_base_.model.auxiliary_head[:2])
