#!/usr/bin/env python
"""Read every image and label that a config names: tools/check_dataset.py CONFIG

Prints the percentage of each class, of all pixels or, for a classifier, of all
images. Stops at the first file that is missing, cannot be read, has another size than
its image or holds values outside the classes.
"""
import argparse
import sys
from pathlib import Path
from typing import Callable, Iterable

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
try:
    import numpy as np
    from mmengine.config import DictAction
    from mmengine.registry import init_default_scope
    from prettytable import PrettyTable
    from rich.progress import track

    from mmseg_encstdc.compat import quiet
    from mmseg_encstdc.compat.data import build_without_pipeline
    from mmseg_encstdc.datasets.image_checks import image_size_reader
    from mmseg_encstdc.datasets.sample_checks import check_pair, check_pairs_exist
    from mmseg_encstdc.datasets.transforms import LoadSegAnnotations
    from mmseg_encstdc.engine import check_config, datasets_of, load_config
    from mmseg_encstdc.errors import one_line_errors
except ImportError as error:
    sys.exit(f'error: {error}')

LOADERS = ['train_dataloader', 'val_dataloader']


def check(config: dict) -> None:
    """Read all files of a data set and print the percentage of each class."""
    dataset = build_without_pipeline(config)
    name, classes = type(dataset).__name__, dataset.metainfo['classes']
    samples = [dataset.get_data_info(i) for i in range(len(dataset))]
    check_pairs_exist(name, samples)
    read_size = image_size_reader(config.get('pipeline'))
    names, steps = dict(enumerate(classes)), track(samples, description=name)
    if 'gt_label' in samples[0]:
        unit, counts = 'images', count_images(steps, len(classes), read_size)
    else:
        unit, counts = 'pixels', count_pixels(steps, len(classes), read_size)
        names[255] = 'ignored'
    table = PrettyTable(['class', f'percent of all {unit}'])
    for value, label in names.items():
        table.add_row([label, f'{100 * counts[value] / counts.sum():.2f}'])
    print(f'{name}: {len(samples)} images and labels are sound\n{table}')


def count_pixels(samples: Iterable[dict], num_classes: int,
                 read_size: Callable) -> np.ndarray:
    """Count the pixels of each label value, (256, ), int64."""
    load = LoadSegAnnotations(num_classes=num_classes)
    pixels = np.zeros(256, np.int64)
    for sample in samples:
        check_pair(sample, read_size)
        label = load(sample)['gt_seg_map']
        pixels += np.bincount(label.ravel(), minlength=256)
    return pixels


def count_images(samples: Iterable[dict], num_classes: int,
                 read_size: Callable) -> np.ndarray:
    """Count the images of each class, (num_classes, ), int64."""
    images = np.zeros(num_classes, np.int64)
    for sample in samples:
        read_size(sample['img_path'])
        images[sample['gt_label']] += 1
    return images


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config file')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    args = parser.parse_args()
    with one_line_errors(), quiet():
        cfg = load_config(args.config, args.cfg_options)
        init_default_scope('mmseg')
        check_config(cfg, LOADERS)
        for loader in LOADERS:
            for config in datasets_of(cfg[loader].dataset):
                check(config)


if __name__ == '__main__':
    main()
