"""Train one step on a GPU, with each backend of the operators."""
import pytest
import torch
from mmengine.config import Config
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from mmseg_encstdc.ops import backend

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not torch.cuda.is_available(), reason='needs a CUDA device')
]


@pytest.fixture(params=['auto', *backend.BACKENDS])
def chosen(request, monkeypatch):
    if request.param != 'auto':
        reason = backend.unavailable(
            backend.OPERATORS['encode'], request.param, torch.device('cuda'))
        if reason:
            pytest.skip(reason)
    monkeypatch.setenv(backend.VARIABLE, request.param)


@pytest.mark.parametrize('amp', [False, True])
@pytest.mark.parametrize('name', ['encnet_r18_camvid', 'stdc1_camvid'])
def test_network_trains_one_step(root, chosen, name, amp):
    cfg = Config.fromfile(root / f'configs/{name}.py')
    model = MODELS.build(cfg.model).cuda().train()
    label = torch.randint(0, 11, (1, 128, 128), device='cuda')
    sample = SegDataSample(gt_sem_seg=PixelData(data=label))
    with torch.autocast('cuda', enabled=amp):
        losses = model.loss(
            torch.randn(2, 3, 128, 128, device='cuda'), [sample, sample])
        total, _ = model.parse_losses(losses)
    total.backward()
    assert torch.isfinite(total)
    assert all(
        torch.isfinite(p.grad).all() for p in model.parameters()
        if p.requires_grad)
