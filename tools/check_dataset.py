#!/usr/bin/env python
"""Read every image and label that a config names: tools/check_dataset.py CONFIG

Prints the pixels of each class. Stops at the first file that is missing,
cannot be read, is not of its image's size or holds values outside the classes.
"""
import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
try:
    import numpy as np
    from mmengine.config import DictAction
    from mmengine.registry import init_default_scope
    from mmseg.registry import DATASETS
    from prettytable import PrettyTable
    from rich.progress import track

    from mmseg_encstdc.datasets.checks import check_pair, check_pairs_exist
    from mmseg_encstdc.datasets.transforms import LoadSegAnnotations
    from mmseg_encstdc.engine import check_config, cli
    from mmseg_encstdc.engine.checks import datasets_of
except ImportError as error:
    sys.exit(f'error: {error}')

LOADERS = ['train_dataloader', 'val_dataloader']


def check(config: dict) -> None:
    """Read one data set whole and print its class frequencies."""
    dataset = DATASETS.build(
        {**config, 'pipeline': [], 'serialize_data': False})
    name, classes = type(dataset).__name__, dataset.metainfo['classes']
    samples = [dataset.get_data_info(i) for i in range(len(dataset))]
    check_pairs_exist(name, samples)
    load = LoadSegAnnotations(num_classes=len(classes))
    pixels = np.zeros(256, np.int64)
    for sample in track(samples, description=name):
        check_pair(sample)
        label = load(sample)['gt_seg_map']
        pixels += np.bincount(label.ravel(), minlength=256)
    table = PrettyTable(['class', 'percent of all pixels'])
    names = {**dict(enumerate(classes)), 255: 'ignored'}
    for value, label in names.items():
        table.add_row([label, f'{100 * pixels[value] / pixels.sum():.2f}'])
    print(f'{name}: {len(samples)} images and labels are sound\n{table}')


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config file')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    args = parser.parse_args()
    with cli.one_line_errors():
        cfg = cli.load_config(args.config, args.cfg_options)
        init_default_scope('mmseg')
        check_config(cfg, LOADERS)
        for loader in LOADERS:
            for config in datasets_of(cfg[loader].dataset):
                check(config)


if __name__ == '__main__':
    main()
