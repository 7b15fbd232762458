"""Draw label maps in colours, alone or over their image. All pictures are RGB."""
from typing import List, Sequence

import cv2
import numpy as np

__all__ = ['colorize', 'contact_sheet', 'legend', 'overlay']


def colorize(label: np.ndarray, palette: Sequence[Sequence[int]]) -> np.ndarray:
    """Return the colours of a label map, (H, W, 3), uint8.

    Args:
        label: class ids, (H, W), uint8. Ids beyond the palette are black.
        palette: (r, g, b) of each class.
    """
    table = np.zeros((256, 3), np.uint8)
    table[:len(palette)] = np.asarray(palette, np.uint8)[:256]
    return table[label]


def overlay(image: np.ndarray, label: np.ndarray, palette: Sequence[Sequence[int]],
            opacity: float = 0.5) -> np.ndarray:
    """Blend an image with the colours of its label map.

    Args:
        image: (H, W, 3), uint8.
        label: class ids, (H, W), uint8. Ids beyond the palette keep the image.
        palette: (r, g, b) of each class.
        opacity: of the colours, in [0, 1].

    Returns:
        (H, W, 3), uint8.

    Raises:
        ValueError: when image and label differ in size.
    """
    if image.shape[:2] != label.shape:
        raise ValueError(
            f'image {image.shape[:2]} and label {label.shape} differ in size')
    mixed = cv2.addWeighted(image, 1 - opacity, colorize(label, palette), opacity, 0)
    return np.where((label < len(palette))[..., None], mixed, image)


def legend(classes: Sequence[str], palette: Sequence[Sequence[int]], width: int,
           row: int = 18) -> np.ndarray:
    """Draw class names and colours, in as many columns as fit.

    Args:
        classes: names.
        palette: (r, g, b) of each class.
        width: width of the picture, pixels.
        row: height of a row, pixels.

    Returns:
        (rows * row, width, 3), uint8.
    """
    column = 8 * max(map(len, classes)) + row + 8
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
    """Arrange pictures of various sizes on a white grid, (height, width, 3), uint8.

    Args:
        rows: pictures (H, W, 3), uint8.
        gap: space between them, pixels.
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
