"""Pictures of label maps."""
from pathlib import Path

import cv2
import numpy as np

from mmseg_encstdc.scenes.classes import CLASSES, PALETTE
from mmseg_encstdc.visualization import contact_sheet, legend, overlay


def read_labels(folder: Path) -> dict:
    """{image name: (H, W) uint8}."""
    return {
        path.stem: cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        for path in sorted(folder.glob('*.png'))
    }


def draw(data: Path, predictions: dict, path: Path, count: int = 6) -> None:
    """Image, label and every network's prediction of some val images."""
    truth = read_labels(data / 'labels' / 'val')
    names = list(truth)[::max(1, len(truth) // count)][:count]
    rows = []
    for name in names:
        image = cv2.imread(str(data / 'images' / 'val' / f'{name}.png'))
        image = image[..., ::-1].copy()
        maps = [truth[name]] + [labels[name] for labels in predictions.values()]
        rows.append(
            [image] + [overlay(image, label, PALETTE, 0.7) for label in maps])
    sheet = contact_sheet(rows)
    sheet = np.vstack([sheet, legend(CLASSES, PALETTE, sheet.shape[1])])
    cv2.imwrite(str(path), sheet[..., ::-1])


def write_overlays(data: Path, labels: dict, folder: Path) -> None:
    """An overlay of every val image."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, label in labels.items():
        image = cv2.imread(str(data / 'images' / 'val' / f'{name}.png'))
        picture = overlay(image[..., ::-1].copy(), label, PALETTE)
        cv2.imwrite(str(folder / f'{name}.jpg'), picture[..., ::-1])
