"""Label maps as colours, alone or over their image. All images are RGB."""
from typing import List, Sequence

import cv2
import numpy as np

__all__ = ['colorize', 'contact_sheet', 'legend', 'overlay']


def colorize(label: np.ndarray, palette: Sequence) -> np.ndarray:
    """Colours of a label map; ids beyond the palette are black.

    Args:
        label (ndarray): class ids, (H, W), 8-bit.
        palette (Sequence): one (r, g, b) a class.

    Returns:
        ndarray: (H, W, 3), uint8.
    """
    table = np.zeros((256, 3), np.uint8)
    table[:len(palette)] = np.asarray(palette, np.uint8)[:256]
    return table[label]


def overlay(image: np.ndarray,
            label: np.ndarray,
            palette: Sequence,
            opacity: float = 0.5) -> np.ndarray:
    """An image with its label map over it; ignored pixels stay bare.

    Args:
        image (ndarray): (H, W, 3), uint8.
        label (ndarray): (H, W), uint8.
        palette (Sequence): one (r, g, b) a class.
        opacity (float): of the colours, in [0, 1]. Default: 0.5.

    Returns:
        ndarray: (H, W, 3), uint8.

    Raises:
        ValueError: when image and label differ in size.
    """
    if image.shape[:2] != label.shape:
        raise ValueError(f'image {image.shape[:2]} and label {label.shape} '
                         'differ in size')
    colors = colorize(label, palette)
    mixed = cv2.addWeighted(image, 1 - opacity, colors, opacity, 0)
    return np.where((label < len(palette))[..., None], mixed, image)


def legend(classes: Sequence[str],
           palette: Sequence,
           width: int,
           row: int = 18) -> np.ndarray:
    """Class names on their colours, in as many columns as fit.

    Args:
        classes (Sequence[str]): names.
        palette (Sequence): one (r, g, b) a class.
        width (int): of the picture, pixels.
        row (int): height of a row, pixels. Default: 18.

    Returns:
        ndarray: (rows * row, width, 3), uint8.
    """
    column = 8 * max(len(name) for name in classes) + row + 8
    columns = max(width // column, 1)
    rows = -(-len(classes) // columns)
    canvas = np.full((rows * row, width, 3), 255, np.uint8)
    for i, (name, color) in enumerate(zip(classes, palette)):
        top, left = i // columns * row, i % columns * column
        canvas[top + 3:top + row - 3, left + 4:left + row] = color
        cv2.putText(canvas, name, (left + row + 4, top + row - 5),
                    cv2.FONT_HERSHEY_SIMPLEX, 0.4, (0, 0, 0), 1, cv2.LINE_AA)
    return canvas


def contact_sheet(rows: List[List[np.ndarray]], gap: int = 4) -> np.ndarray:
    """Pictures of various sizes on a white grid.

    Args:
        rows (list[list[ndarray]]): pictures (H, W, 3), uint8.
        gap (int): space between them, pixels. Default: 4.

    Returns:
        ndarray: (height, width, 3), uint8.
    """
    cell_h = max(p.shape[0] for row in rows for p in row) + gap
    cell_w = max(p.shape[1] for row in rows for p in row) + gap
    columns = max(map(len, rows))
    sheet = np.full((len(rows) * cell_h, columns * cell_w, 3), 255, np.uint8)
    for i, row in enumerate(rows):
        for j, picture in enumerate(row):
            height, width = picture.shape[:2]
            top, left = i * cell_h, j * cell_w
            sheet[top:top + height, left:left + width] = picture
    return sheet
