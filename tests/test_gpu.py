"""What only a CUDA device can show."""
import pytest
import torch
from mmengine.config import Config
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from mmseg_encstdc.ops import encode, encode_reference

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not torch.cuda.is_available(), reason='needs a CUDA device')
]


@pytest.mark.parametrize('memory_format',
                         [torch.contiguous_format, torch.channels_last])
def test_encode_is_the_reference_on_cuda(memory_format):
    x = torch.randn(2, 64, 24, 24, device='cuda').contiguous(
        memory_format=memory_format)
    codewords = 0.3 * torch.randn(16, 64, device='cuda')
    scale = -0.05 * torch.rand(16, device='cuda')
    torch.testing.assert_close(
        encode(x, codewords, scale),
        encode_reference(x.double(), codewords.double(),
                         scale.double()).float(), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize('amp', [False, True])
@pytest.mark.parametrize('name', ['encnet_r18_camvid', 'stdc1_camvid'])
def test_a_network_learns_one_step_on_cuda(root, name, amp):
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
