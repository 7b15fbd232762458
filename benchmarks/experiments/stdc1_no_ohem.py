# STDC1 with the mean cross entropy of all labelled pixels instead of OHEM.
_base_ = '../../configs/stdc1_camvid.py'
loss = dict(type='CrossEntropyLoss', avg_non_ignore=True)
aux_8, aux_16, detail = _base_.model.auxiliary_head
model = dict(
    decode_head=dict(loss_decode=dict(_delete_=True, **loss)),
    auxiliary_head=[{**aux_8, 'loss_decode': loss}, {**aux_16, 'loss_decode': loss},
                    detail])
