"""Paint the stage of a scene, a box that looks alike in streets and rooms."""

from typing import Tuple

import cv2
import numpy as np

from .canvas import Box, Canvas, pick
from .classes import CLASSES

# Colours of the backdrop (sand, brick, plaster, slate) and of the ground.
BACKDROP_COLOURS = ((190, 168, 140), (176, 116, 94), (202, 197, 186), (150, 156, 166))
GROUND_COLOURS = ((118, 114, 110), (136, 116, 98), (98, 106, 116))

# The planes of the box, in the order in which ``locate_pixels`` numbers them.
BACK, LEFT, RIGHT, UPPER, GROUND = range(5)


def draw_box(rng: np.random.Generator) -> Box:
    """Choose image size and perspective."""
    height, width = int(rng.integers(160, 201)), int(rng.integers(208, 257))
    return Box(
        height=height,
        width=width,
        vx=width * rng.uniform(0.38, 0.62),
        vy=height * rng.uniform(0.44, 0.50),
        left=width * rng.uniform(0.14, 0.26),
        top=height * rng.uniform(0.24, 0.32),
        right=width * rng.uniform(0.74, 0.86),
        bottom=height * rng.uniform(0.62, 0.68),
    )


def locate_pixels(box: Box) -> Tuple[np.ndarray, ...]:
    """Return which plane of the box each pixel shows, and where.

    Returns:
        Plane, int (H, W), one of ``BACK`` .. ``GROUND``, and the pixel's
        texture coordinates x, y and depth, float32 (H, W): x and y in pixels of the
        far rectangle, depth 1 at the far rectangle, towards 0 at the camera.
    """
    dy, dx = np.mgrid[: box.height, : box.width].astype(np.float32)  # 2 x (H, W)
    dx, dy = dx - np.float32(box.vx), dy - np.float32(box.vy)
    nearness = np.stack(
        [
            np.ones_like(dx),
            dx / np.float32(box.left - box.vx),
            dx / np.float32(box.right - box.vx),
            dy / np.float32(box.top - box.vy),
            dy / np.float32(box.bottom - box.vy),
        ]
    )  # (5, H, W)
    # A pixel shows the nearest of the five planes that its ray meets.
    near = nearness.max(axis=0)  # (H, W)
    return nearness.argmax(axis=0), dx / near, dy / near, 1 / near


def paint_stage(
    box: Box, surfaces: Tuple[str, str, str], rng: np.random.Generator
) -> Canvas:
    """Paint the three surfaces of the stage, and windows on the backdrop.

    Args:
        box: the perspective.
        surfaces: names for the label: upper, backdrop, ground. They have no
            influence on the image.
        rng: source of every random choice.

    Returns:
        The stage.
    """
    plane, x, y, depth = locate_pixels(box)
    images = upper_image(plane.shape, rng), *solid_images(plane, x, y, depth, rng)
    upper, ground = plane == UPPER, plane == GROUND  # 2 x (H, W)
    surface = np.where(upper, 0, np.where(ground, 2, 1))  # (H, W)
    image = np.choose(surface[..., None], images)  # (H, W, 3)
    label = np.take([CLASSES.index(name) for name in surfaces], surface)
    canvas = Canvas(np.clip(image, 0, 255).astype(np.uint8), label.astype(np.uint8))
    paint_windows(canvas, box, rng)
    return canvas


def upper_image(shape: Tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Paint sky or ceiling: pale and blotchy. Returns float32 (H, W, 3)."""
    tint = rng.uniform(-12, 12)  # from cream to pale blue
    colour = rng.uniform(185, 230) + np.float32([-tint, 0, tint + 4])
    return rng.uniform(6, 14) * blotches(shape, 5, rng)[..., None] + colour


def solid_images(
    plane: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    depth: np.ndarray,
    rng: np.random.Generator,
) -> Tuple[np.ndarray, np.ndarray]:
    """Paint backdrop and ground; returns two images, float32 (H, W, 3).

    Args:
        plane, x, y, depth: as from ``locate_pixels``, (H, W) each.
        rng: source of every random choice.
    """
    size = rng.uniform(9, 13)  # height of the masonry courses at the far end
    along = np.where(plane == BACK, x / (2 * size), depth * rng.uniform(4, 7))
    shades = np.ones(5, np.float32)
    shades[[BACK, LEFT, RIGHT]] = rng.uniform(0.78, 1.06, 3)
    stone = pick(rng, BACKDROP_COLOURS)
    backdrop = masonry(along, y / size, 5, rng) + stone

    size = rng.uniform(13, 20)  # width of the paving at the far end
    paving = pick(rng, GROUND_COLOURS)
    ground = masonry(x / size, depth * rng.uniform(4, 6), 9, rng) + paving
    return backdrop * shades[plane][..., None], ground


def masonry(
    across: np.ndarray, along: np.ndarray, strength: float, rng: np.random.Generator
) -> np.ndarray:
    """Paint coursed stones; returns brightness around 0, float32 (H, W, 1).

    Args:
        across, along: position in stones, (H, W) each.
        strength: standard deviation of the grain, in grey levels.
        rng: source of every random choice.
    """
    shift = np.floor(along) % 2 / 2  # every other course begins with half a stone
    joints = ((across + shift) % 1 < 0.1) | (along % 1 < 0.1)  # (H, W)
    grain = strength * rng.standard_normal(joints.shape, np.float32)
    stains = rng.uniform(4, 9) * blotches(joints.shape, 8, rng)
    return (stains + grain - rng.uniform(8, 26) * joints)[..., None]


def blotches(
    shape: Tuple[int, int], cells: int, rng: np.random.Generator
) -> np.ndarray:
    """Return smooth noise, float32 (H, W), with about ``cells`` blotches a side."""
    coarse = rng.standard_normal((cells, cells), np.float32)
    return cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_CUBIC)


def paint_windows(canvas: Canvas, box: Box, rng: np.random.Generator) -> None:
    """Paint windows on the far wall and on both side walls."""
    glass = rng.uniform(40, 80) + rng.uniform(0, 70) * np.array([0.5, 0.8, 1.0])
    low, high = rng.uniform(0.32, 0.42), rng.uniform(0.70, 0.82)
    for middle in (0.2, 0.5, 0.8):
        if rng.random() < 0.6:
            ends = middle - 0.07, middle + 0.07
            quad = [box.point(ends[i], up, 1) for i, up in corners(low, high)]
            paint_window(canvas, np.array(quad), glass)
    for side in (0, 1):
        for near in (1.25, 1.7):
            if rng.random() < 0.6:
                ends = near, near * 1.18
                quad = [box.point(side, up, ends[i]) for i, up in corners(low, high)]
                paint_window(canvas, np.array(quad), glass)


def corners(low: float, high: float) -> Tuple[tuple, ...]:
    """Return the corners of a window as (end, height), in order around it."""
    return (0, low), (1, low), (1, high), (0, high)


def paint_window(canvas: Canvas, quad: np.ndarray, glass: np.ndarray) -> None:
    """Paint one window; quad is its outline, float64 (4, 2), glass a colour."""
    canvas.polygon(quad, glass + 90, 'window')
    centre = quad.mean(axis=0)  # (2,)
    canvas.polygon(centre + (quad - centre) * 0.76, glass, 'window')
    sill, head = quad[:2].mean(axis=0), quad[2:].mean(axis=0)  # 2 x (2,)
    canvas.line([sill, head], glass + 90, 'window', 1)
