"""Define a box in perspective, and an image with its label to draw on."""

from dataclasses import dataclass
from typing import List, Sequence, Tuple

import cv2
import numpy as np

from .classes import CLASSES


@dataclass(frozen=True)
class Box:
    """Describe a box in perspective, the shape of a room and of a street canyon.

    ``height`` and ``width`` are the size of the image. The far end of the box is the
    rectangle ``left, top, right, bottom``; its edges run from the vanishing point
    ``(vx, vy)`` towards the camera. A point of nearness ``near`` lies ``near`` times
    as far from the vanishing point as it would at the far end, where ``near == 1``.
    All in pixels.
    """

    height: int
    width: int
    vx: float
    vy: float
    left: float
    top: float
    right: float
    bottom: float

    def point(self, across: float, up: float, near: float) -> Tuple[float, float]:
        """Project a point; across and up are 0..1 within the far rectangle."""
        x = self.left + across * (self.right - self.left)
        y = self.bottom + up * (self.top - self.bottom)
        return self.vx + near * (x - self.vx), self.vy + near * (y - self.vy)

    def unit(self, near: float) -> float:
        """Return the height of the backdrop at a nearness: the scale of things."""
        return near * (self.bottom - self.top)


@dataclass
class Canvas:
    """Hold an image, uint8 (H, W, 3), and its label, uint8 (H, W), to draw on.

    Its methods paint one shape into both, in pixels. ``name`` is a class name.
    """

    image: np.ndarray
    label: np.ndarray

    def polygon(self, points: np.ndarray, colour: np.ndarray, name: str) -> None:
        """Fill a polygon; points is a sequence of (x, y)."""
        points = pixels(points)
        cv2.fillPoly(self.image, points, scalar(colour))
        cv2.fillPoly(self.label, points, CLASSES.index(name))

    def line(
        self, points: np.ndarray, colour: np.ndarray, name: str, width: int
    ) -> None:
        """Draw an open line, ``width`` pixels wide, through (x, y) points."""
        # OpenCV draws a line of width 2 three pixels wide, so the line is made of
        # lines of width 1, each beside the last.
        reach = np.ptp(points, axis=0)  # (2,), extent in x and y
        sideways = (0, 1) if reach[0] > reach[1] else (1, 0)
        for step in range(width):
            strand = pixels(points + np.multiply(sideways, step))
            cv2.polylines(self.image, strand, False, scalar(colour))
            cv2.polylines(self.label, strand, False, CLASSES.index(name))

    def shadow(self, centre: np.ndarray, radius_x: float, radius_y: float) -> None:
        """Darken an ellipse; a shadow has no label of its own."""
        mask = np.zeros_like(self.label)  # (H, W)
        cv2.fillPoly(mask, pixels(ellipse(centre, radius_x, radius_y)), 1)
        self.image[mask == 1] = self.image[mask == 1] // 5 * 3


def pixels(points: np.ndarray) -> List[np.ndarray]:
    """Round (x, y) points to the list of one int32 (N, 2) array OpenCV wants."""
    return [np.round(np.asarray(points)).astype(np.int32)]


def pick(rng: np.random.Generator, colours: Sequence) -> np.ndarray:
    """Return one of some RGB colours, a little changed, float32 (3,)."""
    change = rng.uniform(-14, 14, 3)
    return np.float32(colours[rng.integers(len(colours))] + change)


def scalar(colour: np.ndarray) -> Tuple[int, ...]:
    """Return a colour as the tuple of ints in 0..255 that OpenCV wants."""
    return tuple(int(value) for value in np.clip(np.round(colour), 0, 255))


def ellipse(centre: np.ndarray, radius_x: float, radius_y: float) -> np.ndarray:
    """Return the outline of an upright ellipse, float64 (24, 2)."""
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)  # (24,)
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)  # (24, 2)
    return circle * (radius_x, radius_y) + centre
