"""Configs of classification: networks, pipelines and schedule."""
from pathlib import Path

import numpy as np
import pytest
import torch
from mmcv.transforms import Compose
from mmengine.config import Config
from mmengine.structures import BaseDataElement
from mmseg.registry import METRICS, MODELS
from PIL import Image

CONFIGS = sorted((Path(__file__).parents[2] / 'configs').glob('*_imagenet.py'))


def ids(path):
    return path.stem


def test_configs_have_both_networks():
    kinds = {path.stem: Config.fromfile(path).model.backbone.stdc_type
             for path in CONFIGS}
    assert kinds == dict(stdc1_imagenet='STDCNet1', stdc2_imagenet='STDCNet2')


@pytest.mark.parametrize('path', CONFIGS, ids=ids)
def test_config_builds_and_trains(path):
    model = MODELS.build(Config.fromfile(path).model).train()
    sample = BaseDataElement()
    sample.gt_label = torch.tensor(999)
    images = torch.randn(2, 3, 64, 64)
    total, _ = model.parse_losses(model(images, [sample] * 2, mode='loss'))
    total.backward()
    assert torch.isfinite(total)
    assert not [name for name, parameter in model.named_parameters()
                if parameter.grad is None]


@pytest.mark.parametrize('path', CONFIGS, ids=ids)
def test_pipelines_give_images_of_224(path, tmp_path):
    cfg = Config.fromfile(path)
    for i, size in enumerate([(40, 60), (300, 260), (500, 224)]):
        image = tmp_path / f'{i}.JPEG'
        Image.fromarray(np.full((*size, 3), 90, np.uint8)).save(image)
        for pipeline in (cfg.train_pipeline, cfg.test_pipeline):
            found = Compose(pipeline)(dict(img_path=str(image), gt_label=5))
            assert found['inputs'].shape == (3, 224, 224)
            assert found['data_samples'].gt_label == 5
            assert found['data_samples'].ori_shape == size


@pytest.mark.parametrize('path', CONFIGS, ids=ids)
def test_test_pipeline_crops_the_centre(path, tmp_path):
    """Compare with a shorter side of 256 and the centre 224 pixels of it."""
    picture = np.zeros((256, 512, 3), np.uint8)
    picture[16:240, 144:368] = 200
    Image.fromarray(picture).save(tmp_path / 'a.png')
    cfg = Config.fromfile(path)
    found = Compose(cfg.test_pipeline)(dict(img_path=str(tmp_path / 'a.png')))
    assert (found['inputs'] == 200).all()


@pytest.mark.parametrize('path', CONFIGS, ids=ids)
def test_schedule_covers_every_epoch(path):
    cfg = Config.fromfile(path)
    warmup, decay = cfg.param_scheduler
    assert (warmup.begin, warmup.end, decay.begin) == (0, 5, 5)
    assert decay.end == cfg.train_cfg.max_epochs == 5 + decay.T_max
    assert cfg.default_hooks.checkpoint.save_best == 'top1'
    schedule = path.parent / '_base_' / 'schedules' / 'imagenet_300e.py'
    assert 'ours, not the authors\'' in schedule.read_text()


@pytest.mark.parametrize('path', CONFIGS, ids=ids)
def test_evaluator_gives_the_save_best_key(path):
    cfg = Config.fromfile(path)
    metric = METRICS.build(cfg.val_evaluator)
    metric.process({}, [dict(gt_label=1, pred_score=torch.arange(9.))])
    assert cfg.default_hooks.checkpoint.save_best in metric.evaluate(1)
