"""Simulate light and camera, and cover the regions that are ignored."""

import math
from typing import Tuple

import cv2
import numpy as np

from .canvas import ellipse, pixels
from .classes import IGNORE


def light_image(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Light a scene and take its picture.

    Args:
        image: surface colours, uint8 (H, W, 3).
        rng: source of every random choice.

    Returns:
        The picture, uint8 (H, W, 3).
    """
    blurred = cv2.GaussianBlur(image, (3, 3), 0.6)  # the lens
    warmth = rng.uniform(-0.12, 0.12)
    gain = rng.uniform(0.7, 1.2) * np.array([1 + warmth, 1, 1 - warmth])
    levels = (np.arange(256) / 255) ** rng.uniform(0.8, 1.3)  # (256,)
    picture = levels.astype(np.float32)[blurred] * gain.astype(np.float32)
    picture *= 255 * shade(image.shape[:2], rng)[..., None]
    noise = rng.standard_normal(image.shape, np.float32)
    picture += rng.uniform(2, 7) * noise
    return np.clip(np.round(picture), 0, 255).astype(np.uint8)


def shade(shape: Tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Return a shadow that falls in from one direction, float32 (H, W) in 0..1."""
    height, width = shape
    angle, edge = rng.uniform(0, 2 * math.pi), rng.uniform(-0.4, 0.4)
    dark, softness = rng.uniform(0, 0.45), rng.uniform(0.05, 0.5)
    x = np.linspace(-0.5, 0.5, width, dtype=np.float32)[None] * math.cos(angle)
    y = np.linspace(-0.5, 0.5, height, dtype=np.float32)[:, None] * math.sin(angle)
    ramp = np.clip((x + y - edge) / softness + 0.5, 0, 1)  # (H, W)
    return (1 - dark * ramp).astype(np.float32)


def hide_regions(
    image: np.ndarray, label: np.ndarray, rng: np.random.Generator
) -> Tuple[np.ndarray, np.ndarray]:
    """Cover some regions and label them ``IGNORE``; changes both arrays in place.

    These are a black stripe at one image side, a camera logo in some images, and
    one or two smeared patches in which nothing can be recognised.

    Args:
        image: uint8 (H, W, 3).
        label: uint8 (H, W).
        rng: source of every random choice.

    Returns:
        Image and label.
    """
    height, width = label.shape
    smear = cv2.GaussianBlur(image, (0, 0), 7)
    for _ in range(rng.integers(1, 3)):
        centre = rng.uniform(0.1, 0.9, 2) * (width, height)
        outline = pixels(ellipse(centre, *rng.uniform(7, 13, 2)))
        cv2.fillPoly(label, outline, IGNORE)
    image[label == IGNORE] = smear[label == IGNORE]
    if rng.random() < 0.5:
        stamp_logo(image[6:18, 8:36], label[6:18, 8:36])
    stripe = slice(0, int(rng.integers(2, 4)))
    turns = rng.integers(4)
    np.rot90(image, turns)[stripe] = 0
    np.rot90(label, turns)[stripe] = IGNORE
    return image, label


def stamp_logo(image: np.ndarray, label: np.ndarray) -> None:
    """Cover a part of an image by a camera logo: pale bars on a dark plate."""
    image[:] = (40, 40, 45)
    for x, length in ((4, 8), (9, 5), (14, 8), (19, 3)):
        image[10 - length : 10, x : x + 3] = (225, 225, 230)
    label[:] = IGNORE
