"""Write a training that takes a few milliseconds an iteration; find a port for it."""
import socket
from pathlib import Path

import cv2
import numpy as np

BASE = Path(__file__).parents[1] / 'configs' / '_base_'
CONFIG = '''
_base_ = ['{base}/models/local.py', '{base}/datasets/camvid_stdc.py',
          '{base}/schedules/encnet_iters.py', '{base}/default_runtime.py']
model = dict(backbone=dict(channels=4, depth=1), decode_head=dict(
    in_channels=4, channels=4, num_classes=11))
data = '{data}'
train_pipeline = [dict(type='LoadSegImage'), dict(type='LoadSegAnnotations'),
                  dict(type='PackSegInputs')]
loader = dict(num_workers=0, persistent_workers=False, dataset=dict(data_root=data))
train_dataloader = dict(batch_size=2, num_workers=0, persistent_workers=False,
                        dataset=dict(data_root=data, pipeline=train_pipeline))
val_dataloader = loader
test_dataloader = loader
train_cfg = dict(max_iters=100000, val_interval=100000)
param_scheduler = [dict(type='PolyLR', end=100000, by_epoch=False)]
default_hooks = dict(checkpoint=dict(interval=100000), logger=dict(interval=1))
'''


def write_run(folder, images=5):
    """Write images of 32 x 24 pixels, and the config of a training without end.

    Returns:
        The path of the config.
    """
    rng = np.random.default_rng(0)
    for split in ('train', 'val'):
        for kind in ('images', 'labels'):
            (folder / 'data' / kind / split).mkdir(parents=True)
        for i in range(images):
            label = rng.integers(0, 11, (3, 4), np.uint8).repeat(8, 0).repeat(8, 1)
            image = np.stack([label * 20, 255 - label * 20, label], 2)
            cv2.imwrite(str(folder / f'data/images/{split}/{split}{i}.jpg'), image)
            cv2.imwrite(str(folder / f'data/labels/{split}/{split}{i}.png'), label)
    config = folder / 'small.py'
    config.write_text(CONFIG.format(base=BASE, data=folder / 'data'))
    return config


def free_port():
    """Return a port at which nobody listens."""
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return str(s.getsockname()[1])
