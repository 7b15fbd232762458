"""Test trainings in bfloat16 on a CPU."""
import pytest
import torch
from mmengine.model.utils import revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from small_runs import small_config

from mmseg_encstdc.engine import mixed_precision, use_amp
from mmseg_encstdc.engine.mixed_precision import has_bfloat16
from mmseg_encstdc.errors import InputError

on_cpu = pytest.mark.skipif(torch.cuda.is_available(), reason='a GPU has float16')


@pytest.fixture
def with_bfloat16(monkeypatch):
    """Train in bfloat16 whatever this CPU has; PyTorch computes it anyway."""
    monkeypatch.setattr(mixed_precision, 'has_bfloat16', lambda: True)


def step(cfg):
    """Return the losses of a step, the type of the first features, and the weights."""
    torch.manual_seed(0)
    model = revert_sync_batchnorm(MODELS.build(cfg.model)).train()
    model.init_weights()
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    types = []
    next(m for m in model.modules() if isinstance(m, torch.nn.Conv2d)
         ).register_forward_hook(lambda *values: types.append(values[-1].dtype))
    labels = torch.arange(2 * 96 * 96).reshape(2, 1, 96, 96) % 97 % 11
    samples = [SegDataSample(gt_sem_seg=PixelData(data=label),
                             metainfo=dict(img_shape=(96, 96))) for label in labels]
    with wrapper.optim_context(model):
        losses = model.loss(torch.randn(2, 3, 96, 96), samples)
    total, parts = model.parse_losses(losses)
    wrapper.update_params(total)
    assert all(p.dtype == torch.float32 for p in model.parameters())
    assert all(torch.isfinite(p).all() for p in model.parameters())
    return parts, types[0]


@on_cpu
@pytest.mark.parametrize('name', ['stdc1_camvid', 'encnet_r18_camvid'])
def test_bfloat16_step_has_losses_close_to_float32(with_bfloat16, tmp_path, name):
    cfg = small_config(tmp_path, tmp_path, name)
    expected, kind = step(cfg)
    assert kind == torch.float32
    use_amp(cfg)
    got, kind = step(cfg)
    assert cfg.optim_wrapper.type == 'BFloat16OptimWrapper' and kind == torch.bfloat16
    assert got.keys() == expected.keys()
    for key, value in expected.items():
        if 'loss' in key:
            assert float(got[key]) == pytest.approx(float(value), rel=0.05), key


@on_cpu
def test_use_amp_rejects_cpu_without_bfloat16(monkeypatch, tmp_path):
    monkeypatch.setattr(mixed_precision, 'has_bfloat16', lambda: False)
    with pytest.raises(InputError, match='AVX512_BF16'):
        use_amp(small_config(tmp_path, tmp_path))


def test_use_amp_rejects_other_wrapper(tmp_path):
    cfg = small_config(tmp_path, tmp_path)
    cfg.optim_wrapper.type = 'ApexOptimWrapper'
    with pytest.raises(InputError, match='ApexOptimWrapper'):
        use_amp(cfg)


def test_has_bfloat16_is_what_the_kernel_says():
    with open('/proc/cpuinfo') as file:
        flags = file.read().split()
    assert has_bfloat16() == ('avx512_bf16' in flags or 'amx_tile' in flags)
