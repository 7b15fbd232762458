#!/usr/bin/env python
"""Damage files at random, and see what reads them.

dev/fuzz_files.py --files 2000 writes benchmarks/results/file_fuzz.json. Pictures go
through predict, pictures and labels through the reader of tools/check_dataset.py and
the label loader, checkpoints through load and the converters. Each file is read in a
process of its own. Right is a result of the file's size, or an InputError of one line.
"""
import argparse
import json
import multiprocessing
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Callable, Dict, List, Tuple

ROOT = Path(__file__).resolve().parents[1]
for folder in ('', 'benchmarks'):
    sys.path.insert(0, str(ROOT / folder))

import cv2  # noqa: E402
import numpy as np  # noqa: E402
import record  # noqa: E402
import tifffile  # noqa: E402
import torch  # noqa: E402
from mmengine.config import Config  # noqa: E402
from mmengine.dataset import BaseDataset  # noqa: E402
from PIL import Image  # noqa: E402

from mmseg_encstdc.apis import load, predict  # noqa: E402
from mmseg_encstdc.convert import (  # noqa: E402
    convert_file,
    mmsegmentation,
    pytorch_encoding,
    stdc_seg,
)
from mmseg_encstdc.datasets import LoadSegAnnotations  # noqa: E402
from mmseg_encstdc.datasets.pair_reader import PairReader  # noqa: E402
from mmseg_encstdc.errors import InputError  # noqa: E402

SIZE = (48, 64)  # height, width of all pictures
CLASSES = 11
TIMEOUT = 60  # seconds
BAD = ('exception', 'several lines', 'wrong size', 'crash', 'hang')
Reader = Callable[[Path], None]


class WrongSize(Exception):
    """Report a result whose size is not that of the picture."""


def damage(content: bytes, rng: random.Random) -> bytes:
    """Change bytes in one of seven ways."""
    size = len(content)
    start = rng.randrange(size)
    end = min(size, start + rng.choice((1, 4, 64, 1024)))
    noise = rng.randbytes(end - start)
    changed = rng.choice((
        lambda: content[:start],
        lambda: content[:start] + noise + content[end:],
        lambda: content[:start] + bytes(end - start) + content[end:],
        lambda: content[:start] + content[end:],
        lambda: content[:end] + content[start:],
        lambda: _flip_bits(content, rng),
        # In a header, where sizes and formats stand.
        lambda: _flip_bits(content[:64], rng) + content[64:]))()
    return changed


def _flip_bits(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice((1, 2, 8))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def write_sources(folder: Path) -> Dict[str, Path]:
    """Write a sound file of each kind; return them by name."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (*SIZE, 3), np.uint8)
    label = rng.integers(0, CLASSES, SIZE, np.uint8)
    Image.fromarray(pixels).save(folder / 'image.jpg')
    Image.fromarray(pixels).save(folder / 'image.png')
    Image.fromarray(pixels).save(folder / 'image.tif')
    bands = rng.integers(0, 2**16, (*SIZE, 5), np.uint16)
    tifffile.imwrite(folder / 'bands.tif', bands, photometric='minisblack',
                     planarconfig='contig')
    Image.fromarray(label).save(folder / 'label.png')
    palette = Image.fromarray(label)
    palette.putpalette(list(range(256)) * 3)
    palette.save(folder / 'palette.png')
    return {path.name: path for path in sorted(folder.iterdir())}


def small_config(folder: Path, **loader) -> Path:
    """Write the config of a tiny EncNet, whose image loader has some arguments."""
    cfg = Config.fromfile(ROOT / 'configs/encnet_r18_camvid.py')
    cfg.model.backbone.update(
        base_channels=8, stem_channels=8, in_channels=loader.get('bands', 3))
    cfg.model.decode_head.update(in_channels=[16, 32, 64], channels=16, num_codes=4)
    cfg.model.auxiliary_head.update(in_channels=32, channels=8)
    if loader:
        cfg.model.data_preprocessor.update(
            mean=[3e4] * loader['bands'], std=[1e4] * loader['bands'])
        cfg.test_dataloader.dataset.pipeline[0].update(loader)
    path = folder / f'config{len(loader)}.py'
    cfg.dump(path)
    return path


def predictor(config: Path) -> Reader:
    """Return a function that predicts a picture and checks the size of the labels."""
    model = load(config=str(config), weights=False, device='cpu')

    def read(path: Path) -> None:
        labels = predict(model, path)
        pixels = cv2.imread(str(path))
        if pixels is not None and labels.shape != pixels.shape[:2]:
            raise WrongSize(f'{labels.shape}, the picture is {pixels.shape[:2]}')

    return read


def reader_of_pairs(name: str) -> Reader:
    """Return a function that reads a file as image or label of a data set."""
    classes = tuple(map(str, range(CLASSES)))
    dataset = BaseDataset(metainfo=dict(classes=classes), lazy_init=True)
    reader = PairReader(dataset, [dict(type='LoadSegImage'),
                                  dict(type='LoadSegAnnotations')])

    def read(path: Path) -> None:
        others = dict(img_path=path.with_name('image.jpg'),
                      seg_map_path=path.with_name('label.png'), label_map=None,
                      reduce_zero_label=False, seg_fields=[])
        reader.read({**others, name: str(path)})

    return read


def read_label(path: Path) -> None:
    """Load a label map; its values must be classes."""
    found = LoadSegAnnotations(CLASSES).transform(dict(
        seg_map_path=str(path), label_map=None, reduce_zero_label=False, seg_fields=[],
        img_path=str(path), ori_shape=SIZE))['gt_seg_map']
    if found.shape != SIZE or not set(np.unique(found)) <= {*range(CLASSES), 255}:
        raise WrongSize(f'{found.shape}')


def all_targets(folder: Path) -> List[Tuple[str, Path, Reader]]:
    """Return (name, sound file, reader) of everything that reads files."""
    files = write_sources(folder)
    plain, bands = small_config(folder), small_config(folder, bands=5, dtype='uint16')
    model = load(config=str(plain), weights=False, device='cpu')
    checkpoint = folder / 'checkpoint.pth'
    torch.save(dict(state_dict=model.state_dict(),
                    meta=dict(dataset_meta=dict(classes=['a'] * CLASSES))), checkpoint)
    colours, many = predictor(plain), predictor(bands)
    targets = [('predict', files[name], colours)
               for name in ('image.jpg', 'image.png', 'image.tif')]
    targets += [('predict', files['bands.tif'], many)]
    for name, kind in (('image.jpg', 'img_path'), ('image.png', 'img_path'),
                       ('label.png', 'seg_map_path'), ('palette.png', 'seg_map_path')):
        targets.append(('check_dataset', files[name], reader_of_pairs(kind)))
    targets += [('label', files[name], read_label)
                for name in ('label.png', 'palette.png')]
    targets += [('load', checkpoint,
                 lambda path: load(str(path), str(plain), device='cpu'))] * 2
    targets += [
        ('convert', checkpoint, lambda path, converter=converter: convert_file(
            converter, str(path), f'{path}.out', str(plain)))
        for converter in (mmsegmentation, pytorch_encoding, stdc_seg)]
    return targets


def _read(reader: Reader, path: Path, pipe) -> None:
    """Read a file; send (outcome, line) through a pipe."""
    torch.set_num_threads(1)
    try:
        reader(path)
        pipe.send(('ok', ''))
    except InputError as error:
        lines = str(error).splitlines()
        pipe.send(('error' if len(lines) == 1 else 'several lines', lines[0]))
    except WrongSize as error:
        pipe.send(('wrong size', str(error)))
    except Exception as error:
        pipe.send(('exception', f'{type(error).__name__}: {error}'[:300]))


def attempt(reader: Reader, path: Path) -> Tuple[str, str]:
    """Read a file in a forked process; return (outcome, line)."""
    context = multiprocessing.get_context('fork')
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_read, args=(reader, path, theirs))
    process.start()
    theirs.close()
    try:
        if not ours.poll(TIMEOUT):
            process.kill()
            return 'hang', ''
        return ours.recv()
    except EOFError:
        return 'crash', ''
    finally:
        process.join()


def fuzz(count: int, seed: int, folder: Path) -> List[dict]:
    """Damage and read files, each target in turn."""
    targets = all_targets(folder)
    runs = []
    for index in range(count):
        target, source, reader = targets[index % len(targets)]
        rng = random.Random(f'{seed} {index}')
        path = folder / f'damaged{source.suffix}'
        path.write_bytes(damage(source.read_bytes(), rng))
        outcome, line = attempt(reader, path)
        runs.append(dict(index=index, target=target, source=source.name,
                         outcome=outcome, line=line))
    return runs


def summary(runs: List[dict]) -> dict:
    """Count what happened, and list what should not have."""
    return dict(
        files=len(runs), outcomes=dict(Counter(r['outcome'] for r in runs)),
        by_target={t: dict(Counter(r['outcome'] for r in runs if r['target'] == t))
                   for t in sorted({r['target'] for r in runs})},
        bad=[r for r in runs if r['outcome'] in BAD])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--files', type=int, default=2000)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--out', help='write here instead of benchmarks/results')
    args = parser.parse_args()
    start = time.time()
    with tempfile.TemporaryDirectory() as folder:
        runs = fuzz(args.files, args.seed, Path(folder))
    figures = dict(seed=args.seed, minutes=round((time.time() - start) / 60, 1),
                   **summary(runs))
    record.write('file_fuzz', figures, kind='cpu', out=args.out)
    print(json.dumps(figures, indent=1))


if __name__ == '__main__':
    main()
