"""One custom_imports line in MMSegmentation's own configs."""
import subprocess
import sys
from pathlib import Path

import mmseg
import pytest

STOCK = Path(mmseg.__file__).parent / '.mim' / 'configs'
SCRIPT = """
import sys
from mmengine.config import Config
cfg = Config.fromfile(sys.argv[1])
cfg.custom_imports = dict(imports=['mmseg_encstdc'], allow_failed_imports=False)
cfg.dump(sys.argv[2])
cfg = Config.fromfile(sys.argv[2])  # imports the plugin, as the tools do

import torch
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

init_default_scope('mmseg')
cfg.model.pretrained = None
model = MODELS.build(cfg.model).train()
sample = SegDataSample()
sample.gt_sem_seg = PixelData(data=torch.randint(0, 19, (1, 96, 96)))
losses = model.loss(torch.randn(2, 3, 96, 96), [sample, sample])
total, _ = model.parse_losses(losses)
total.backward()
assert torch.isfinite(total)
parts = (model.decode_head, model.backbone, getattr(model.backbone, 'backbone', None))
print(' '.join(type(part).__module__ for part in parts))
"""


@pytest.mark.parametrize('config, ours', [
    ('encnet/encnet_r50-d8_4xb2-40k_cityscapes-512x1024.py', 'heads.enc_head'),
    ('stdc/stdc1_4xb12-80k_cityscapes-512x1024.py', 'backbones.stdc'),
])
def test_a_stock_config_builds_ours_and_takes_a_step(
        config, ours, root, tmp_path):
    if not (STOCK / config).is_file():
        pytest.skip('this mmsegmentation was installed without its configs')
    run = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', SCRIPT,
         str(STOCK / config), str(tmp_path / 'with_line.py')],
        cwd=tmp_path, env={'PYTHONPATH': str(root), 'PATH': ''},
        capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert f'mmseg_encstdc.{ours}' in run.stdout
