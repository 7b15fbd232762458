# EncNet-R18 without the semantic encoding loss.
_base_ = '../../configs/encnet_r18_camvid.py'
model = dict(decode_head=dict(use_se_loss=False))
