# EncNet-R18 on CamVid from random weights. 400 iterations of 8 crops are 9
# epochs, what two CPU cores finish within half an hour; on a GPU --max-iters.
_base_ = [
    './_base_/models/encnet_r18.py', './_base_/datasets/camvid_encnet.py',
    './_base_/schedules/encnet_iters.py', './_base_/default_runtime.py'
]
model = dict(
    decode_head=dict(num_classes=11), auxiliary_head=dict(num_classes=11))
