"""Test that every config builds, trains one step and has the authors' settings."""
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.structures import PixelData
from mmseg.registry import METRICS, MODELS, TRANSFORMS
from mmseg.structures import SegDataSample

import mmseg_encstdc
from mmseg_encstdc.engine import use_mode

# Of segmentation; classifiers/test_classifier_configs.py has the others.
CONFIGS = sorted(
    path for path in (Path(__file__).parents[1] / 'configs').glob('*.py')
    if not path.stem.endswith('_imagenet'))
ENCNET = [path for path in CONFIGS if path.stem.startswith('encnet')]
STDC = [path for path in CONFIGS if path.stem.startswith('stdc')]
NAMES = [
    *(f'encnet_{r}_{data}' for r in ('r50', 'r101')
      for data in ('ade', 'pcontext', 'voc', 'cityscapes')),
    *(f'encnet_{r}_{data}' for r in ('r50s', 'r101s')
      for data in ('ade', 'pcontext')),
    'encnet_r50_coco',
    *(f'stdc{i}_seg{scale}_cityscapes' for i in (1, 2) for scale in (50, 75)),
    'encnet_r18_camvid', 'encnet_r50_camvid', 'stdc1_camvid', 'stdc2_camvid',
    'encnet_r18_scenes', 'stdc1_scenes'
]


def ids(path):
    return path.stem


def samples(batch, size, classes):
    """Return labels (1, size, size) with an ignored corner, ``batch`` times."""
    result = []
    for _ in range(batch):
        label = torch.randint(0, classes, (1, size, size))
        label[:, :8, :8] = 255
        sample = SegDataSample(metainfo=dict(
            img_shape=(size, size), ori_shape=(size, size)))
        sample.gt_sem_seg = PixelData(data=label)
        result.append(sample)
    return result


def test_configs_of_all_experiments_exist():
    assert set(NAMES) <= {path.stem for path in CONFIGS}


@pytest.mark.parametrize('path', CONFIGS, ids=ids)
def test_config_has_less_than_30_lines(path):
    assert len(path.read_text().splitlines()) < 30


@pytest.mark.parametrize('path', CONFIGS, ids=ids)
def test_config_builds_and_takes_a_step(path):
    cfg = Config.fromfile(path)
    model = MODELS.build(cfg.model).train()
    classes = cfg.model.decode_head.num_classes
    losses = model.loss(torch.randn(2, 3, 64, 64), samples(2, 64, classes))
    total, _ = model.parse_losses(losses)
    total.backward()
    assert torch.isfinite(total)
    idle = [
        name for name, parameter in model.named_parameters()
        if parameter.requires_grad and parameter.grad is None
    ]
    assert idle == []  # DistributedDataParallel would wait for them


@pytest.mark.parametrize('path', CONFIGS, ids=ids)
def test_config_builds_pipelines_and_metrics(path):
    cfg = Config.fromfile(path)
    for pipeline in (cfg.test_pipeline, cfg.tta_pipeline,
                     datasets(cfg)[0].pipeline):
        assert [TRANSFORMS.build(transform) for transform in pipeline]
    evaluators = cfg.val_evaluator
    evaluators = [evaluators] if isinstance(evaluators, dict) else evaluators
    assert [METRICS.build(metric) for metric in evaluators]


def datasets(cfg):
    dataset = cfg.train_dataloader.dataset
    return dataset.get('datasets', [dataset])


@pytest.mark.parametrize('path', CONFIGS, ids=ids)
def test_config_predicts_in_all_modes(path):
    cfg = Config.fromfile(path)
    assert cfg.model.test_cfg.mode == 'whole'
    modes = {name: mode.test_cfg for name, mode in cfg.test_modes.items()}
    assert modes['slide'].mode == 'slide'
    protocol = 'stdc' if path in STDC else 'encnet'
    assert modes['chip'].protocol == protocol
    scales, flips = cfg.tta_pipeline[1].transforms[:2]
    assert len(scales) >= 3 and len(flips) == 2
    for name in ('chip', 'slide'):
        use_mode(cfg, name)
        model = MODELS.build(cfg.model).eval()
        side = 32 if 'local' in path.stem else 64
        shrink(model.test_cfg, side)
        with torch.no_grad():
            result = model.predict(torch.randn(1, 3, side + 8, side + 24))
        assert result[0].pred_sem_seg.data.shape == (1, side + 8, side + 24)


def shrink(test_cfg, side):
    """Make the crops small, so that the test is fast."""
    if test_cfg.mode == 'chip':
        test_cfg.update(crop_size=side, base_size=side + 24, scales=(1., ))
    else:
        test_cfg.update(crop_size=(side, side), stride=(side // 2, side // 2))


@pytest.mark.parametrize('path', CONFIGS, ids=ids)
def test_config_shuffles_and_drops_last_batch(path):
    loader = Config.fromfile(path).train_dataloader
    assert loader.sampler.shuffle and loader.drop_last


@pytest.mark.parametrize('path', ENCNET, ids=ids)
def test_encnet_config_has_authors_settings(path):
    cfg = Config.fromfile(path)
    keys = cfg.optim_wrapper.paramwise_cfg.custom_keys
    assert keys.decode_head.lr_mult == keys.auxiliary_head.lr_mult == 10
    assert cfg.optim_wrapper.optimizer.weight_decay == 1e-4
    assert [s.type for s in cfg.param_scheduler] == ['PolyLR']  # no warm-up
    assert cfg.param_scheduler[0].power == 0.9
    head, auxiliary = cfg.model.decode_head, cfg.model.auxiliary_head
    assert head.norm_cfg.type == auxiliary.norm_cfg.type == 'SyncBN'
    assert head.loss_decode.avg_non_ignore and head.align_corners
    assert auxiliary.loss_decode.loss_weight == 0.4
    assert head.loss_se_decode.loss_weight == 0.2
    lateral = path.stem.endswith(('pcontext', 'voc'))
    assert head.add_lateral is lateral


@pytest.mark.parametrize('path', STDC, ids=ids)
def test_stdc_config_has_authors_settings(path):
    cfg = Config.fromfile(path)
    assert cfg.optim_wrapper.optimizer.weight_decay == 5e-4
    assert [s.type
            for s in cfg.param_scheduler] == ['ExponentialWarmup', 'PolyLR']
    heads = [cfg.model.decode_head, *cfg.model.auxiliary_head]
    assert [h.type for h in heads] == ['SegHead'] * 3 + ['DetailHead']
    for head in heads[:3]:
        assert head.loss_decode.type == 'OhemCELoss'
        assert head.loss_decode.min_kept == 1 / 16
        assert head.loss_decode.thresh == 0.7
    assert [h.in_index for h in heads] == [3, 2, 1, 0]


@pytest.mark.parametrize('scale', [50, 75])
def test_stdc_seg_config_has_scale_of_its_name(root, scale):
    cfg = Config.fromfile(root / f'configs/stdc1_seg{scale}_cityscapes.py')
    assert cfg.model.test_cfg.scale == scale / 100
    assert cfg.model.backbone.backbone_cfg.norm_cfg.requires_grad is False


@pytest.mark.parametrize('name, lr, epochs', [
    ('encnet_r50_ade', 0.01, 120), ('encnet_r101_cityscapes', 0.01, 240),
    ('encnet_r50_pcontext', 0.001, 80), ('encnet_r101_voc', 0.001, 80),
    ('encnet_r50_coco', 0.004, 30)
])
def test_encnet_config_has_authors_rate_and_epochs(root, name, lr, epochs):
    cfg = Config.fromfile(root / f'configs/{name}.py')
    assert cfg.optim_wrapper.optimizer.lr == lr
    assert cfg.train_cfg.max_epochs == cfg.param_scheduler[0].end == epochs


def test_local_config_has_receptive_field_of_15_pixels(root):
    cfg = Config.fromfile(root / 'configs/local_scenes.py')
    model = MODELS.build(cfg.model).eval()
    image = torch.randn(1, 3, 41, 41, requires_grad=True)
    model(image, mode='tensor')[0, :, 20, 20].sum().backward()
    seen = image.grad.abs().sum((0, 1)).nonzero()
    assert seen.min(0).values.tolist() == [13, 13]
    assert seen.max(0).values.tolist() == [27, 27]


def test_version_has_three_parts():
    assert mmseg_encstdc.__version__.count('.') == 2
