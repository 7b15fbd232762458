"""The configs of docs/your-data.md load pictures of their kind and train on them."""
import runpy
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.model import revert_sync_batchnorm
from mmseg.registry import DATASETS, MODELS
from PIL import Image

from mmseg_encstdc.apis import load, predict
from mmseg_encstdc.apis.exporting import export_onnx
from mmseg_encstdc.engine import check_config, check_data
from mmseg_encstdc.engine.configs import bind_classes

ROOT = Path(__file__).parents[1]
LOADERS = ['train_dataloader', 'val_dataloader', 'test_dataloader']
SIZE = (96, 128)


def colours(label):
    """Draw (H, W, 3) uint8 from a label (H, W)."""
    return np.stack([60 * label, 200 - 60 * label, label], 2).astype(np.uint8)


def write_png(path, image):
    cv2.imwrite(f'{path}.png', image)


def write_bands(path, image):
    tifffile = pytest.importorskip('tifffile')
    image = np.concatenate([image, 255 - image[..., :2]], 2)
    tifffile.imwrite(f'{path}.tif', image, photometric='minisblack',
                     planarconfig='contig')


def write_stored(path, image):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(image).save(f'{path}.png', exif=exif)


def as_16_bits(image):
    return image[..., 0].astype(np.uint16) * 257


# By the name of the config: how an image is written, what becomes of a label of 0 to 2,
# and the shape and type of the packed image.
KINDS = {
    'own': (write_png, lambda x: x, 3, torch.uint8),
    'own_binary': (write_png, lambda x: 255 * (x > 0), 3, torch.uint8),
    'own_grey': (lambda path, image: write_png(path, image[..., 0]),
                 lambda x: x, 1, torch.uint8),
    'own_bands': (write_bands, lambda x: x, 5, torch.uint8),
    'own_16_bits': (lambda path, image: write_png(path, as_16_bits(image)),
                    lambda x: x, 1, torch.float32),
    'own_ignore': (write_png, lambda x: x + 1, 3, torch.uint8),
    'own_stored': (write_stored, lambda x: x, 3, torch.uint8),
}


@pytest.fixture(scope='module')
def configs(tmp_path_factory):
    """Write the configs of the guide beside those of the project; return their folder.
    """
    folder = tmp_path_factory.mktemp('guide')
    shutil.copytree(ROOT / 'configs', folder / 'configs')
    read = runpy.run_path(str(ROOT / 'dev/docs_check.py'))['blocks']
    guide = ROOT / 'docs/your-data.md'
    for block in read('your-data.md', guide.read_text()):
        for name in block.marked('file'):
            (folder / name).write_text(block.text)
    return folder / 'configs'


def write_data(folder, name):
    """Write four pictures for a config."""
    write, label_of, _, _ = KINDS[name]
    for split in ('train', 'val'):
        for kind in ('images', 'labels'):
            (folder / kind / split).mkdir(parents=True)
        for i in range(2):
            label = np.random.randint(0, 3, (SIZE[0] // 16, SIZE[1] // 16))
            label = label.repeat(16, 0).repeat(16, 1)
            write(folder / 'images' / split / str(i), colours(label))
            write_png(folder / 'labels' / split / str(i),
                      label_of(label).astype(np.uint8))


@pytest.fixture(params=KINDS)
def cfg(request, configs, tmp_path):
    """Return one config of the guide, with data of its kind and a small network."""
    name = request.param
    write_data(tmp_path, name)
    cfg = Config.fromfile(configs / f'{name}.py')
    for loader in LOADERS:
        cfg[loader].dataset.data_root = str(tmp_path)
    net = cfg.model.backbone
    net.backbone_cfg.channels = (8, 8, 16, 32, 64)
    net.update(last_in_channels=(64, 32), out_channels=16)
    net.ffm_cfg.update(in_channels=32, out_channels=16)
    for head in (cfg.model.decode_head, *cfg.model.auxiliary_head):
        head.update(in_channels=16, channels=8)
    for step in cfg.train_dataloader.dataset.pipeline:
        if 'crop_size' in step:
            step.crop_size = (64, 64)
    cfg.kind = name
    return cfg


def test_guide_has_the_configs_of_this_test(configs):
    assert {path.stem for path in configs.glob('own*.py')} == set(KINDS)


def test_config_of_guide_passes_the_checks(cfg):
    check_config(cfg, LOADERS, training=True)
    check_data(Config(dict(cfg, train_dataloader=dict(
        cfg.train_dataloader, batch_size=2))), LOADERS)


def test_config_of_guide_trains(cfg):
    _, _, bands, dtype = KINDS[cfg.kind]
    bind_classes(cfg, LOADERS)
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    batch = pseudo_collate([dataset[0], dataset[1]])
    for image, sample in zip(batch['inputs'], batch['data_samples']):
        assert image.shape == (bands, 64, 64) and image.dtype == dtype
        found = set(sample.gt_sem_seg.data.unique().tolist())
        assert found <= {0, 1, 2, 255} and found & {0, 1}
    model = revert_sync_batchnorm(MODELS.build(cfg.model))
    batch = model.data_preprocessor(batch, training=True)
    assert batch['inputs'].shape == (2, bands, 64, 64)
    losses = model(**batch, mode='loss')
    total = sum(value for key, value in losses.items() if 'loss' in key)
    total.backward()
    gradient = next(model.backbone.parameters()).grad
    assert torch.isfinite(total) and gradient.abs().sum() > 0


def test_config_of_guide_has_pipeline_of_test_time_augmentation(cfg):
    _, _, bands, dtype = KINDS[cfg.kind]
    bind_classes(cfg, LOADERS)
    plain = DATASETS.build(cfg.test_dataloader.dataset)[0]
    views = DATASETS.build({
        **cfg.test_dataloader.dataset, 'pipeline': cfg.tta_pipeline})[0]
    assert len(views['inputs']) == 8  # four scales, flipped or not
    for image, sample in zip(views['inputs'], views['data_samples']):
        assert image.shape[0] == bands and image.dtype == dtype
        assert torch.equal(sample.gt_sem_seg.data,
                           plain['data_samples'].gt_sem_seg.data)


def test_config_of_guide_predicts_files_and_arrays_alike(cfg, tmp_path):
    model = load(config=cfg, weights=False, device='cpu')
    path, = (tmp_path / 'images/val').glob('0.*')
    labels = predict(model, path)
    assert labels.shape == SIZE
    if cfg.kind == 'own_bands':
        tifffile = pytest.importorskip('tifffile')
        image = tifffile.imread(path)
    elif cfg.kind in ('own_grey', 'own_16_bits'):
        image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    else:
        image = cv2.imread(str(path), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    with_scores = predict(model, [path, image], with_scores=True)
    assert np.array_equal(with_scores[0][0], labels)
    assert np.array_equal(with_scores[0][1], with_scores[1][1])


def test_config_of_guide_predicts_in_mode_chip(cfg, tmp_path):
    cfg.model.test_cfg = dict(cfg.test_modes.chip.test_cfg, crop_size=48, scales=(1., ))
    for protocol in ('encnet', 'stdc'):
        cfg.model.test_cfg.protocol = protocol
        model = load(config=cfg, weights=False, device='cpu')
        path, = (tmp_path / 'images/val').glob('0.*')
        assert predict(model, path).shape == SIZE


@pytest.mark.parametrize('preprocess', [False, True])
def test_config_of_guide_exports(cfg, tmp_path, preprocess):
    onnx = pytest.importorskip('onnx')
    pytest.importorskip('onnxruntime')
    _, _, bands, dtype = KINDS[cfg.kind]
    model = load(config=cfg, weights=False, device='cpu')
    export_onnx(model, tmp_path / 'a.onnx', (64, 96), preprocess=preprocess)
    image, = onnx.load(str(tmp_path / 'a.onnx')).graph.input
    shape = [d.dim_value for d in image.type.tensor_type.shape.dim]
    assert shape == ([1, 64, 96, bands] if preprocess else [1, bands, 64, 96])
    expected = onnx.TensorProto.UINT8 if preprocess and dtype == torch.uint8 else (
        onnx.TensorProto.FLOAT)
    assert image.type.tensor_type.elem_type == expected
