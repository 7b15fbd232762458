"""Choose and paint the things on the stage of a scene."""

from dataclasses import dataclass
from typing import Callable, List, Tuple

import numpy as np

from .canvas import Box, Canvas, ellipse, pick


@dataclass(frozen=True)
class Thing:
    """Describe a thing that stands in the scene.

    ``role`` is a key of ``SHARED`` or ``PROPS``, ``foot`` the (x, y) pixel where it
    stands, ``unit`` the height of the backdrop there in pixels, ``near`` its
    nearness to the camera.
    """

    role: str
    foot: tuple
    unit: float
    near: float


def plan_things(box: Box, rng: np.random.Generator) -> List[Thing]:
    """Choose things and their places, farthest first.

    Props stand in two groups, left and right of the middle, so that a crop of half the
    image still contains one. Most of the stage has no prop near it.
    """

    def put(role: str, across: float, near: float) -> None:
        foot = box.point(across, 0, near)
        things.append(Thing(role, foot, box.unit(near), near))

    things = []
    for middle in (0.24, 0.76):
        across, near = middle + rng.uniform(-0.1, 0.1), rng.uniform(1.05, 1.4)
        group = rng.random()
        if group < 0.6:
            put('wide', across, near)
        if group > 0.4:
            put('tall', across + rng.uniform(-0.1, 0.1), near - 0.03)
    for _ in range(rng.integers(1, 3)):
        put('pole', rng.uniform(0, 1), rng.uniform(1.0, 1.4))
    for _ in range(rng.integers(0, 3)):
        put('person', rng.uniform(0.05, 0.95), rng.uniform(1.0, 1.6))
    return sorted(things, key=lambda thing: thing.near)


def paint_things(
    canvas: Canvas, things: List[Thing], kind: str, stream: Callable
) -> None:
    """Paint things from back to front; only props depend on the kind of scene."""
    for number, thing in enumerate(things):
        # One stream per thing: a prop cannot shift the choices of the next thing.
        rng = stream('paint', number)
        radius = SHADOW_RADIUS[thing.role] * thing.unit
        canvas.shadow(thing.foot, radius, 0.025 * thing.unit)
        paint = SHARED.get(thing.role) or PROPS[kind][thing.role]
        paint(Pen(canvas, thing.foot, thing.unit), rng)


@dataclass(frozen=True)
class Pen:
    """Paint one thing on a canvas, in coordinates of the thing.

    The origin is the foot of the thing, x points right, y points up, and 1 is the
    height of the backdrop where the thing stands.
    """

    canvas: Canvas
    foot: tuple
    unit: float

    def place(self, points: np.ndarray) -> np.ndarray:
        """Turn points of the thing, (N, 2), into pixels, float64 (N, 2)."""
        return np.asarray(points) * (self.unit, -self.unit) + self.foot

    def polygon(self, points: np.ndarray, colour: np.ndarray, name: str) -> None:
        """Fill a polygon."""
        self.canvas.polygon(self.place(points), colour, name)

    def rectangle(
        self, x0: float, y0: float, x1: float, y1: float, colour: np.ndarray, name: str
    ) -> None:
        """Fill an upright rectangle."""
        self.polygon([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], colour, name)

    def ellipse(
        self,
        centre: tuple,
        radius_x: float,
        radius_y: float,
        colour: np.ndarray,
        name: str,
    ) -> None:
        """Fill an upright ellipse."""
        self.polygon(ellipse(centre, radius_x, radius_y), colour, name)


def paint_car(pen: Pen, rng: np.random.Generator) -> None:
    """Paint a car seen from the side."""
    paint = pick(rng, [(200, 40, 40), (40, 80, 200), (235, 235, 240)])
    side = 1 if rng.random() < 0.5 else -1  # the side of the bonnet
    body = [(-0.28, 0.04), (-0.28, 0.15), (-0.2, 0.25), (0.06, 0.25)]
    body += [(0.14, 0.16), (0.27, 0.13), (0.28, 0.04)]
    pen.polygon(np.array(body) * (side, 1), paint, 'car')
    for glass in (
        [(-0.23, 0.155), (-0.185, 0.23), (-0.095, 0.23), (-0.095, 0.155)],
        [(-0.07, 0.155), (-0.07, 0.23), (0.05, 0.23), (0.105, 0.155)],
    ):
        pen.polygon(np.array(glass) * (side, 1), (50, 60, 75), 'car')
    for x in (-0.16, 0.16):
        pen.ellipse((x, 0.05), 0.06, 0.06, (25, 25, 28), 'car')
        pen.ellipse((x, 0.05), 0.025, 0.025, (170, 170, 175), 'car')


def paint_sofa(pen: Pen, rng: np.random.Generator) -> None:
    """Paint a sofa seen from the front."""
    cloth = pick(rng, [(130, 50, 150), (20, 130, 125), (190, 60, 120)])
    for x in (-0.24, 0.24):
        pen.rectangle(x - 0.02, 0, x + 0.02, 0.05, (60, 40, 25), 'sofa')
    pen.rectangle(-0.25, 0.04, 0.25, 0.26, cloth * 0.8, 'sofa')
    pen.rectangle(-0.22, 0.12, -0.01, 0.24, cloth, 'sofa')
    pen.rectangle(0.01, 0.12, 0.22, 0.24, cloth, 'sofa')
    pen.rectangle(-0.22, 0.07, 0.22, 0.12, cloth * 1.2, 'sofa')
    for x in (-0.25, 0.25):
        pen.rectangle(x - 0.035, 0.03, x + 0.035, 0.17, cloth * 1.1, 'sofa')


def paint_tree(pen: Pen, rng: np.random.Generator) -> None:
    """Paint a tree: a trunk below a crown of leaf clusters, light on top."""
    green = pick(rng, [(50, 120, 40), (80, 140, 40), (40, 105, 60)])
    pen.rectangle(-0.025, 0, 0.025, 0.45, (85, 60, 40), 'tree')
    for up in (0.42, 0.47, 0.52, 0.58, 0.64):
        centre = rng.uniform(-0.06, 0.06), up + rng.uniform(-0.02, 0.02)
        radius = rng.uniform(0.08, 0.12)
        pen.ellipse(centre, radius, radius, green * (0.3 + 1.3 * up), 'tree')
    for _ in range(14):
        centre = rng.uniform(-0.1, 0.1), rng.uniform(0.42, 0.68)
        pen.ellipse(centre, 0.02, 0.02, green * rng.uniform(0.7, 1.5), 'tree')


def paint_lamp(pen: Pen, rng: np.random.Generator) -> None:
    """Paint a standard lamp: a foot, a thin stem and a glowing shade."""
    shade = pick(rng, [(250, 190, 60), (250, 150, 60), (250, 215, 110)])
    pen.ellipse((0, 0.01), 0.07, 0.02, (60, 45, 35), 'lamp')
    pen.rectangle(-0.01, 0, 0.01, 0.5, (60, 45, 35), 'lamp')
    outline = [(-0.15, 0.44), (-0.085, 0.68), (0.085, 0.68), (0.15, 0.44)]
    pen.polygon(outline, shade, 'lamp')
    pen.polygon(np.array(outline) * (0.5, 1), shade + 35, 'lamp')


def paint_person(pen: Pen, rng: np.random.Generator) -> None:
    """Paint a standing person."""
    skin = pick(rng, [(235, 195, 165), (190, 140, 105), (110, 75, 55)])
    shirt, trousers = rng.uniform(40, 230, 3), rng.uniform(30, 110, 3)
    pen.rectangle(-0.05, 0, -0.008, 0.19, trousers, 'person')
    pen.rectangle(0.008, 0, 0.05, 0.19, trousers, 'person')
    pen.rectangle(-0.055, 0.17, 0.055, 0.34, shirt, 'person')
    pen.rectangle(-0.08, 0.19, -0.055, 0.33, shirt * 0.85, 'person')
    pen.rectangle(0.055, 0.19, 0.08, 0.33, shirt * 0.85, 'person')
    pen.ellipse((0, 0.385), 0.035, 0.045, skin, 'person')


def paint_pole(pen: Pen, rng: np.random.Generator) -> None:
    """Paint a pole, 2 to 4 pixels wide, and the wires that it carries."""
    x, y = pen.place((0, rng.uniform(1.15, 1.4)))
    y = max(y, 8)
    grey = pick(rng, [(95, 95, 100), (120, 105, 90), (70, 75, 80)])
    width = rng.integers(2, 5)
    pen.canvas.line([(x, y), pen.foot], grey, 'pole', width)
    pen.canvas.line([(x - 8, y + 3), (x + 8, y + 3)], grey, 'pole', 2)
    for drop in (2, 11)[: rng.integers(1, 3)]:
        hang_wire(pen.canvas, (x, y + drop), rng)


def hang_wire(
    canvas: Canvas, top: Tuple[float, float], rng: np.random.Generator
) -> None:
    """Hang a wire, 1 or 2 pixels wide, from both image sides through a point."""
    width, t = rng.integers(1, 3), np.linspace(0, 1, 20)  # t: (20,)
    for side in (0, canvas.label.shape[1] - 1):
        drop = rng.uniform(-8, 4) * t + rng.uniform(8, 24) * t * (1 - t)
        x = top[0] + (side - top[0]) * t
        canvas.line(np.stack([x, top[1] + drop], 1), (45, 45, 50), 'wire', width)


# Painters by role. Things in both kinds of scene:
SHARED = {'pole': paint_pole, 'person': paint_person}
# Props by kind of scene and role. Props of one role have about the same outline, so
# that their places do not identify the kind of scene.
PROPS = {
    'street': {'wide': paint_car, 'tall': paint_tree},
    'room': {'wide': paint_sofa, 'tall': paint_lamp},
}
# Half the width of the shadow at the foot of a thing, in heights of the backdrop.
SHADOW_RADIUS = {'pole': 0.04, 'person': 0.09, 'wide': 0.3, 'tall': 0.09}
