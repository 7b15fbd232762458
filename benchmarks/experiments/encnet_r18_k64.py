# EncNet-R18 with 64 codewords instead of 32.
_base_ = '../../configs/encnet_r18_camvid.py'
model = dict(decode_head=dict(num_codes=64))
