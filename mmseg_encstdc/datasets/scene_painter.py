"""Painter of the generated "Scenes" data set: labelled streets and rooms.

The data set asks one question: does a network use the scene around a pixel?
A street and a room are painted on the same *stage*, a box seen in perspective.
Its three surfaces have exactly the same look in both kinds of scene and differ
only in their label (see ``AMBIGUOUS_PAIRS``). What tells the kind of scene is a
few compact *props*, for instance a car or a sofa, somewhere else in the image.

How a scene is composed (read ``paint_scene`` from top to bottom):

1. ``_draw_box``        chooses image size and perspective;
2. ``_paint_stage``     paints upper, backdrop and ground surface;
3. ``_plan_things``     chooses where things stand;
4. ``_paint_things``    paints them from back to front, so they hide each other;
5. ``_light_image``     applies light, colour temperature, shadow and sensor noise;
6. ``_hide_regions``    covers a few regions whose label is ``IGNORE``.

Only step 4 knows the kind of scene, and only for the props. Every other random
choice comes from a stream that the kind cannot influence, so a street and a room
painted from the same numbers agree in every pixel that no prop covers.

To add a class: append it to ``_CLASS_COLOURS``, write a painter like ``_paint_car``
and enter it in ``_PROPS`` (one kind of scene only) or ``_SHARED`` (both kinds).

Images are uint8 RGB, shape (H, W, 3). Labels are uint8 class indices, shape (H, W).
Points are (x, y) in pixels, with y pointing down.
"""

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np

VERSION = 1  # raise whenever the pixels of any scene change

_CLASS_COLOURS = {
    "road": [128, 64, 128],
    "floor": [200, 150, 110],
    "facade": [90, 90, 90],
    "wall": [230, 215, 160],
    "sky": [70, 130, 180],
    "ceiling": [200, 225, 240],
    "window": [0, 190, 200],
    "pole": [255, 215, 0],
    "wire": [255, 90, 0],
    "person": [220, 20, 60],
    "car": [0, 0, 160],
    "tree": [60, 145, 35],
    "sofa": [150, 40, 190],
    "lamp": [255, 150, 190],
}
CLASSES = tuple(_CLASS_COLOURS)
PALETTE = list(_CLASS_COLOURS.values())
IGNORE = 255

KINDS = ("street", "room")
# The surfaces of the stage, per kind of scene: upper, backdrop, ground.
_SURFACES = {
    "street": ("sky", "facade", "road"),
    "room": ("ceiling", "wall", "floor"),
}
AMBIGUOUS_PAIRS = tuple(zip(*_SURFACES.values()))

# Each split owns a range of scene numbers, so that no scene is in two splits.
_SPLIT_STARTS = {"train": 0, "val": 1_000_000, "test": 2_000_000}
_SPLIT_LENGTH = 1_000_000

# Colours of the backdrop (sand, brick, plaster, slate) and of the ground.
_STONES = ((190, 168, 140), (176, 116, 94), (202, 197, 186), (150, 156, 166))
_PAVINGS = ((118, 114, 110), (136, 116, 98), (98, 106, 116))

# The planes of the box, in the order in which ``_locate_pixels`` numbers them.
_BACK, _LEFT, _RIGHT, _UPPER, _GROUND = range(5)


# --------------------------------------------------------------------------- API


def paint_scene(seed, index, kind=None):
    """Paint one scene.

    Equal arguments give equal pixels in any process and in any order of calls. (A
    different processor or version of NumPy or OpenCV may round a few pixels by one.)

    Args:
        seed (int): Number of the data set, at least 0.
        index (int): Number of the scene, at least 0. Scenes ``2k`` and ``2k + 1``
            are one street and one room, in random order.
        kind (str | None): "street" or "room" to force the kind of scene.

    Returns:
        tuple: image, uint8 (H, W, 3) RGB, and label, uint8 (H, W), with
        160 <= H <= 200 and 208 <= W <= 256.

    Raises:
        ValueError: ``seed`` or ``index`` is negative, or ``kind`` is unknown.
    """
    if seed < 0 or index < 0:
        raise ValueError(f"seed and index must be >= 0, got {seed} and {index}")
    if kind is None:
        kind = _choose_kind(seed, index)
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {KINDS}, got {kind!r}")
    stream = partial(_stream, seed, index)

    box = _draw_box(stream("box"))
    canvas = _paint_stage(box, _SURFACES[kind], stream("stage"))
    things = _plan_things(box, stream("things"))
    _paint_things(canvas, things, kind, stream)
    image = _light_image(canvas.image, stream("light"))
    return _hide_regions(image, canvas.label, stream("hide"))


def write_split(folder, split, count, seed, workers=1):
    """Write the images and labels of one split as PNG files.

    The files are ``folder/images/split/NNNN.png`` and, with the same name,
    ``folder/labels/split/NNNN.png``; existing files are overwritten.

    Args:
        folder (str | Path): Root of the data set, created if missing.
        split (str): "train", "val" or "test"; no scene is in two splits.
        count (int): Number of scenes, 1 to 1,000,000.
        seed (int): Number of the data set, at least 0.
        workers (int): Number of threads. It does not change the pixels.

    Returns:
        list: One int64 array (len(CLASSES) + 1,) per scene: the number of pixels of
        every class in the order of ``CLASSES``, then of ``IGNORE``.

    Raises:
        ValueError: An argument is out of its range.
        OSError: A file cannot be written.
    """
    if split not in _SPLIT_STARTS:
        raise ValueError(f"split must be one of {list(_SPLIT_STARTS)}, got {split!r}")
    if not 1 <= count <= _SPLIT_LENGTH:
        raise ValueError(f"count must be 1 to {_SPLIT_LENGTH}, got {count}")
    if workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    for part in ("images", "labels"):
        (Path(folder) / part / split).mkdir(parents=True, exist_ok=True)
    write = partial(_write_scene, Path(folder), split, seed)
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(write, range(count)))


def _write_scene(folder, split, seed, number):
    """Write scene ``number`` of a split; return its pixel counts per label."""
    image, label = paint_scene(seed, _SPLIT_STARTS[split] + number)
    _write_png(folder / "images" / split / f"{number:04d}.png", image[..., ::-1])
    _write_png(folder / "labels" / split / f"{number:04d}.png", label)
    histogram = np.bincount(label.ravel(), minlength=256)  # (256,)
    return np.append(histogram[: len(CLASSES)], histogram[IGNORE])  # (C + 1,)


def _write_png(path, pixels):
    """Write uint8 pixels, (H, W) grey or (H, W, 3) BGR, to a PNG file."""
    # imencode + write_bytes, because imwrite reports a failure only by its result
    # and cannot open every path name on every platform.
    _, data = cv2.imencode(".png", np.ascontiguousarray(pixels))
    path.write_bytes(data.tobytes())


# ------------------------------------------------------------------ random streams

_STREAMS = ("kind", "box", "stage", "things", "paint", "light", "hide")


def _stream(seed, index, purpose, number=0):
    """Return the random generator for one purpose in one scene.

    A generator per purpose keeps the choices independent: what one step draws
    never shifts what another step gets.
    """
    key = [seed, index, _STREAMS.index(purpose), number]
    return np.random.Generator(np.random.PCG64(key))


def _choose_kind(seed, index):
    """Return the kind of a scene: two neighbours share one coin, so half are each."""
    coin = int(_stream(seed, index // 2, "kind").integers(2))
    return KINDS[(coin + index) % 2]


# --------------------------------------------------------------------- perspective


@dataclass(frozen=True)
class _Box:
    """A box seen in perspective: the shape of a room and of a street canyon.

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

    def point(self, across, up, near):
        """Project a point; across and up are 0..1 within the far rectangle."""
        x = self.left + across * (self.right - self.left)
        y = self.bottom + up * (self.top - self.bottom)
        return self.vx + near * (x - self.vx), self.vy + near * (y - self.vy)

    def unit(self, near):
        """Return the height of the backdrop at a nearness: the scale of things."""
        return near * (self.bottom - self.top)


def _draw_box(rng):
    """Choose image size and perspective."""
    height, width = int(rng.integers(160, 201)), int(rng.integers(208, 257))
    return _Box(
        height=height,
        width=width,
        vx=width * rng.uniform(0.38, 0.62),
        vy=height * rng.uniform(0.44, 0.50),
        left=width * rng.uniform(0.14, 0.26),
        top=height * rng.uniform(0.24, 0.32),
        right=width * rng.uniform(0.74, 0.86),
        bottom=height * rng.uniform(0.62, 0.68),
    )


def _locate_pixels(box):
    """Find out which plane of the box every pixel shows.

    Returns:
        tuple: plane, int (H, W), one of ``_BACK`` .. ``_GROUND``, and the pixel's
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
    # Of the five planes a ray meets, it shows the nearest to the camera.
    near = nearness.max(axis=0)  # (H, W)
    return nearness.argmax(axis=0), dx / near, dy / near, 1 / near


# --------------------------------------------------------------------------- stage


@dataclass
class _Canvas:
    """An image under construction, uint8 (H, W, 3), with its label, uint8 (H, W).

    Its methods paint one shape into both, in pixels. ``name`` is a class name.
    """

    image: np.ndarray
    label: np.ndarray

    def polygon(self, points, colour, name):
        """Fill a polygon; points is a sequence of (x, y)."""
        points = _pixels(points)
        cv2.fillPoly(self.image, points, _scalar(colour))
        cv2.fillPoly(self.label, points, CLASSES.index(name))

    def line(self, points, colour, name, width):
        """Draw an open line, ``width`` pixels wide, through (x, y) points."""
        # OpenCV draws a line of width 2 three pixels wide, so the line is made of
        # lines of width 1, each beside the last.
        reach = np.ptp(points, axis=0)  # (2,), extent in x and y
        sideways = (0, 1) if reach[0] > reach[1] else (1, 0)
        for step in range(width):
            strand = _pixels(points + np.multiply(sideways, step))
            cv2.polylines(self.image, strand, False, _scalar(colour))
            cv2.polylines(self.label, strand, False, CLASSES.index(name))

    def shadow(self, centre, radius_x, radius_y):
        """Darken an ellipse; a shadow has no label of its own."""
        mask = np.zeros_like(self.label)  # (H, W)
        cv2.fillPoly(mask, _pixels(_ellipse(centre, radius_x, radius_y)), 1)
        self.image[mask == 1] = self.image[mask == 1] // 5 * 3


def _pixels(points):
    """Round (x, y) points to the list of one int32 (N, 2) array OpenCV wants."""
    return [np.round(np.asarray(points)).astype(np.int32)]


def _pick(rng, colours):
    """Return one of some RGB colours, a little changed, float32 (3,)."""
    change = rng.uniform(-14, 14, 3)
    return np.float32(colours[rng.integers(len(colours))] + change)


def _scalar(colour):
    """Return a colour as the tuple of ints in 0..255 that OpenCV wants."""
    return tuple(int(value) for value in np.clip(np.round(colour), 0, 255))


def _ellipse(centre, radius_x, radius_y):
    """Return the outline of an upright ellipse, float64 (24, 2)."""
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)  # (24,)
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)  # (24, 2)
    return circle * (radius_x, radius_y) + centre


def _paint_stage(box, surfaces, rng):
    """Paint the three surfaces of the stage, and windows on the backdrop.

    Args:
        box (_Box): The perspective.
        surfaces (tuple): Names for the label: upper, backdrop, ground. They have no
            influence on the image.
        rng (np.random.Generator): Source of all choices.

    Returns:
        _Canvas: The stage.
    """
    plane, x, y, depth = _locate_pixels(box)
    images = _upper_image(plane.shape, rng), *_solid_images(plane, x, y, depth, rng)
    upper, ground = plane == _UPPER, plane == _GROUND  # 2 x (H, W)
    surface = np.where(upper, 0, np.where(ground, 2, 1))  # (H, W)
    image = np.choose(surface[..., None], images)  # (H, W, 3)
    label = np.take([CLASSES.index(name) for name in surfaces], surface)
    canvas = _Canvas(np.clip(image, 0, 255).astype(np.uint8), label.astype(np.uint8))
    _paint_windows(canvas, box, rng)
    return canvas


def _upper_image(shape, rng):
    """Paint sky or ceiling: pale and blotchy. Returns float32 (H, W, 3)."""
    tint = rng.uniform(-12, 12)  # from cream to pale blue
    colour = rng.uniform(185, 230) + np.float32([-tint, 0, tint + 4])
    return rng.uniform(6, 14) * _blotches(shape, 5, rng)[..., None] + colour


def _solid_images(plane, x, y, depth, rng):
    """Paint backdrop and ground; returns two images, float32 (H, W, 3).

    Args:
        plane, x, y, depth (np.ndarray): As from ``_locate_pixels``, (H, W) each.
        rng (np.random.Generator): Source of all choices.
    """
    size = rng.uniform(9, 13)  # height of the masonry courses at the far end
    along = np.where(plane == _BACK, x / (2 * size), depth * rng.uniform(4, 7))
    shades = np.ones(5, np.float32)
    shades[[_BACK, _LEFT, _RIGHT]] = rng.uniform(0.78, 1.06, 3)
    stone = _pick(rng, _STONES)
    backdrop = _masonry(along, y / size, 5, rng) + stone

    size = rng.uniform(13, 20)  # width of the paving at the far end
    paving = _pick(rng, _PAVINGS)
    ground = _masonry(x / size, depth * rng.uniform(4, 6), 9, rng) + paving
    return backdrop * shades[plane][..., None], ground


def _masonry(across, along, strength, rng):
    """Paint coursed stones; returns brightness around 0, float32 (H, W, 1).

    Args:
        across, along (np.ndarray): Position in stones, (H, W) each.
        strength (float): Standard deviation of the grain, in grey levels.
        rng (np.random.Generator): Source of all choices.
    """
    shift = np.floor(along) % 2 / 2  # every other course begins with half a stone
    joints = ((across + shift) % 1 < 0.1) | (along % 1 < 0.1)  # (H, W)
    grain = strength * rng.standard_normal(joints.shape, np.float32)
    stains = rng.uniform(4, 9) * _blotches(joints.shape, 8, rng)
    return (stains + grain - rng.uniform(8, 26) * joints)[..., None]


def _blotches(shape, cells, rng):
    """Return smooth noise, float32 (H, W), with about ``cells`` blotches a side."""
    coarse = rng.standard_normal((cells, cells), np.float32)
    return cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_CUBIC)


def _paint_windows(canvas, box, rng):
    """Paint windows on the far wall and on both side walls."""
    glass = rng.uniform(40, 80) + rng.uniform(0, 70) * np.array([0.5, 0.8, 1.0])
    low, high = rng.uniform(0.32, 0.42), rng.uniform(0.70, 0.82)
    for middle in (0.2, 0.5, 0.8):
        if rng.random() < 0.6:
            ends = middle - 0.07, middle + 0.07
            quad = [box.point(ends[i], up, 1) for i, up in _corners(low, high)]
            _paint_window(canvas, np.array(quad), glass)
    for side in (0, 1):
        for near in (1.25, 1.7):
            if rng.random() < 0.6:
                ends = near, near * 1.18
                quad = [box.point(side, up, ends[i]) for i, up in _corners(low, high)]
                _paint_window(canvas, np.array(quad), glass)


def _corners(low, high):
    """Return the corners of a window as (end, height), in order around it."""
    return (0, low), (1, low), (1, high), (0, high)


def _paint_window(canvas, quad, glass):
    """Paint one window; quad is its outline, float64 (4, 2), glass a colour."""
    canvas.polygon(quad, glass + 90, "window")
    centre = quad.mean(axis=0)  # (2,)
    canvas.polygon(centre + (quad - centre) * 0.76, glass, "window")
    sill, head = quad[:2].mean(axis=0), quad[2:].mean(axis=0)  # 2 x (2,)
    canvas.line([sill, head], glass + 90, "window", 1)


# -------------------------------------------------------------------------- things


@dataclass(frozen=True)
class _Thing:
    """Something that stands in the scene.

    ``role`` is a key of ``_SHARED`` or ``_PROPS``, ``foot`` the (x, y) pixel where it
    stands, ``unit`` the height of the backdrop there in pixels, ``near`` its
    nearness to the camera.
    """

    role: str
    foot: tuple
    unit: float
    near: float


def _plan_things(box, rng):
    """Choose where things stand; returns a list of ``_Thing``, farthest first.

    Props stand in two groups, one left and one right of the middle, so that a crop
    of half the image still contains one. Few and close together, they leave most
    of the stage without a telltale neighbour.
    """

    def put(role, across, near):
        foot = box.point(across, 0, near)
        things.append(_Thing(role, foot, box.unit(near), near))

    things = []
    for middle in (0.24, 0.76):
        across, near = middle + rng.uniform(-0.1, 0.1), rng.uniform(1.05, 1.4)
        group = rng.random()
        if group < 0.6:
            put("wide", across, near)
        if group > 0.4:
            put("tall", across + rng.uniform(-0.1, 0.1), near - 0.03)
    for _ in range(rng.integers(1, 3)):
        put("pole", rng.uniform(0, 1), rng.uniform(1.0, 1.4))
    for _ in range(rng.integers(0, 3)):
        put("person", rng.uniform(0.05, 0.95), rng.uniform(1.0, 1.6))
    return sorted(things, key=lambda thing: thing.near)


def _paint_things(canvas, things, kind, stream):
    """Paint things from back to front; only props depend on the kind of scene."""
    for number, thing in enumerate(things):
        # One stream per thing: a prop cannot shift the choices of the next thing.
        rng = stream("paint", number)
        radius = _SHADOW_RADIUS[thing.role] * thing.unit
        canvas.shadow(thing.foot, radius, 0.025 * thing.unit)
        paint = _SHARED.get(thing.role) or _PROPS[kind][thing.role]
        paint(_Pen(canvas, thing.foot, thing.unit), rng)


@dataclass(frozen=True)
class _Pen:
    """Paints one thing on a canvas, in coordinates of the thing.

    The origin is the foot of the thing, x points right, y points up, and 1 is the
    height of the backdrop where the thing stands.
    """

    canvas: _Canvas
    foot: tuple
    unit: float

    def place(self, points):
        """Turn points of the thing, (N, 2), into pixels, float64 (N, 2)."""
        return np.asarray(points) * (self.unit, -self.unit) + self.foot

    def polygon(self, points, colour, name):
        """Fill a polygon."""
        self.canvas.polygon(self.place(points), colour, name)

    def rectangle(self, x0, y0, x1, y1, colour, name):
        """Fill an upright rectangle."""
        self.polygon([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], colour, name)

    def ellipse(self, centre, radius_x, radius_y, colour, name):
        """Fill an upright ellipse."""
        self.polygon(_ellipse(centre, radius_x, radius_y), colour, name)


def _paint_car(pen, rng):
    """Paint a car seen from the side."""
    paint = _pick(rng, [(200, 40, 40), (40, 80, 200), (235, 235, 240)])
    side = 1 if rng.random() < 0.5 else -1  # the side of the bonnet
    body = [(-0.28, 0.04), (-0.28, 0.15), (-0.2, 0.25), (0.06, 0.25)]
    body += [(0.14, 0.16), (0.27, 0.13), (0.28, 0.04)]
    pen.polygon(np.array(body) * (side, 1), paint, "car")
    for glass in (
        [(-0.23, 0.155), (-0.185, 0.23), (-0.095, 0.23), (-0.095, 0.155)],
        [(-0.07, 0.155), (-0.07, 0.23), (0.05, 0.23), (0.105, 0.155)],
    ):
        pen.polygon(np.array(glass) * (side, 1), (50, 60, 75), "car")
    for x in (-0.16, 0.16):
        pen.ellipse((x, 0.05), 0.06, 0.06, (25, 25, 28), "car")
        pen.ellipse((x, 0.05), 0.025, 0.025, (170, 170, 175), "car")


def _paint_sofa(pen, rng):
    """Paint a sofa seen from the front."""
    cloth = _pick(rng, [(130, 50, 150), (20, 130, 125), (190, 60, 120)])
    for x in (-0.24, 0.24):
        pen.rectangle(x - 0.02, 0, x + 0.02, 0.05, (60, 40, 25), "sofa")
    pen.rectangle(-0.25, 0.04, 0.25, 0.26, cloth * 0.8, "sofa")
    pen.rectangle(-0.22, 0.12, -0.01, 0.24, cloth, "sofa")
    pen.rectangle(0.01, 0.12, 0.22, 0.24, cloth, "sofa")
    pen.rectangle(-0.22, 0.07, 0.22, 0.12, cloth * 1.2, "sofa")
    for x in (-0.25, 0.25):
        pen.rectangle(x - 0.035, 0.03, x + 0.035, 0.17, cloth * 1.1, "sofa")


def _paint_tree(pen, rng):
    """Paint a tree: a trunk below a crown of leaf clusters, light on top."""
    green = _pick(rng, [(50, 120, 40), (80, 140, 40), (40, 105, 60)])
    pen.rectangle(-0.025, 0, 0.025, 0.45, (85, 60, 40), "tree")
    for up in (0.42, 0.47, 0.52, 0.58, 0.64):
        centre = rng.uniform(-0.06, 0.06), up + rng.uniform(-0.02, 0.02)
        radius = rng.uniform(0.08, 0.12)
        pen.ellipse(centre, radius, radius, green * (0.3 + 1.3 * up), "tree")
    for _ in range(14):
        centre = rng.uniform(-0.1, 0.1), rng.uniform(0.42, 0.68)
        pen.ellipse(centre, 0.02, 0.02, green * rng.uniform(0.7, 1.5), "tree")


def _paint_lamp(pen, rng):
    """Paint a standard lamp: a foot, a thin stem and a glowing shade."""
    shade = _pick(rng, [(250, 190, 60), (250, 150, 60), (250, 215, 110)])
    pen.ellipse((0, 0.01), 0.07, 0.02, (60, 45, 35), "lamp")
    pen.rectangle(-0.01, 0, 0.01, 0.5, (60, 45, 35), "lamp")
    outline = [(-0.15, 0.44), (-0.085, 0.68), (0.085, 0.68), (0.15, 0.44)]
    pen.polygon(outline, shade, "lamp")
    pen.polygon(np.array(outline) * (0.5, 1), shade + 35, "lamp")


def _paint_person(pen, rng):
    """Paint a standing person."""
    skin = _pick(rng, [(235, 195, 165), (190, 140, 105), (110, 75, 55)])
    shirt, trousers = rng.uniform(40, 230, 3), rng.uniform(30, 110, 3)
    pen.rectangle(-0.05, 0, -0.008, 0.19, trousers, "person")
    pen.rectangle(0.008, 0, 0.05, 0.19, trousers, "person")
    pen.rectangle(-0.055, 0.17, 0.055, 0.34, shirt, "person")
    pen.rectangle(-0.08, 0.19, -0.055, 0.33, shirt * 0.85, "person")
    pen.rectangle(0.055, 0.19, 0.08, 0.33, shirt * 0.85, "person")
    pen.ellipse((0, 0.385), 0.035, 0.045, skin, "person")


def _paint_pole(pen, rng):
    """Paint a pole, 2 to 4 pixels wide, and the wires that it carries."""
    x, y = pen.place((0, rng.uniform(1.15, 1.4)))
    y = max(y, 8)
    grey = _pick(rng, [(95, 95, 100), (120, 105, 90), (70, 75, 80)])
    width = rng.integers(2, 5)
    pen.canvas.line([(x, y), pen.foot], grey, "pole", width)
    pen.canvas.line([(x - 8, y + 3), (x + 8, y + 3)], grey, "pole", 2)
    for drop in (2, 11)[: rng.integers(1, 3)]:
        _hang_wire(pen.canvas, (x, y + drop), rng)


def _hang_wire(canvas, top, rng):
    """Hang a wire, 1 or 2 pixels wide, from both image sides through a point."""
    width, t = rng.integers(1, 3), np.linspace(0, 1, 20)  # t: (20,)
    for side in (0, canvas.label.shape[1] - 1):
        drop = rng.uniform(-8, 4) * t + rng.uniform(8, 24) * t * (1 - t)
        x = top[0] + (side - top[0]) * t
        canvas.line(np.stack([x, top[1] + drop], 1), (45, 45, 50), "wire", width)


# Painters by role. Things in both kinds of scene:
_SHARED = {"pole": _paint_pole, "person": _paint_person}
# Props, by kind of scene. Every kind has a painter for every role; painters of one
# role fill about the same outline, so the place of a prop tells nothing.
_PROPS = {
    "street": {"wide": _paint_car, "tall": _paint_tree},
    "room": {"wide": _paint_sofa, "tall": _paint_lamp},
}
# Half the width of the shadow at the foot of a thing, in heights of the backdrop.
_SHADOW_RADIUS = {"pole": 0.04, "person": 0.09, "wide": 0.3, "tall": 0.09}


# ----------------------------------------------------------------- light and camera


def _light_image(image, rng):
    """Light a scene and take its picture.

    Args:
        image (np.ndarray): Surface colours, uint8 (H, W, 3).
        rng (np.random.Generator): Source of all choices.

    Returns:
        np.ndarray: The picture, uint8 (H, W, 3).
    """
    blurred = cv2.GaussianBlur(image, (3, 3), 0.6)  # the lens
    warmth = rng.uniform(-0.12, 0.12)
    gain = rng.uniform(0.7, 1.2) * np.array([1 + warmth, 1, 1 - warmth])
    levels = (np.arange(256) / 255) ** rng.uniform(0.8, 1.3)  # (256,)
    picture = levels.astype(np.float32)[blurred] * gain.astype(np.float32)
    picture *= 255 * _shade(image.shape[:2], rng)[..., None]
    noise = rng.standard_normal(image.shape, np.float32)
    picture += rng.uniform(2, 7) * noise
    return np.clip(np.round(picture), 0, 255).astype(np.uint8)


def _shade(shape, rng):
    """Return a shadow that falls in from one direction, float32 (H, W) in 0..1."""
    height, width = shape
    angle, edge = rng.uniform(0, 2 * math.pi), rng.uniform(-0.4, 0.4)
    dark, softness = rng.uniform(0, 0.45), rng.uniform(0.05, 0.5)
    x = np.linspace(-0.5, 0.5, width, dtype=np.float32)[None] * math.cos(angle)
    y = np.linspace(-0.5, 0.5, height, dtype=np.float32)[:, None] * math.sin(angle)
    ramp = np.clip((x + y - edge) / softness + 0.5, 0, 1)  # (H, W)
    return (1 - dark * ramp).astype(np.float32)


def _hide_regions(image, label, rng):
    """Cover some regions and label them ``IGNORE``; changes both arrays in place.

    These are a black stripe at one image side, a camera logo in some images, and
    one or two smeared patches in which nothing can be recognised.

    Args:
        image (np.ndarray): uint8 (H, W, 3).
        label (np.ndarray): uint8 (H, W).
        rng (np.random.Generator): Source of all choices.

    Returns:
        tuple: image and label.
    """
    height, width = label.shape
    smear = cv2.GaussianBlur(image, (0, 0), 7)
    for _ in range(rng.integers(1, 3)):
        centre = rng.uniform(0.1, 0.9, 2) * (width, height)
        outline = _pixels(_ellipse(centre, *rng.uniform(7, 13, 2)))
        cv2.fillPoly(label, outline, IGNORE)
    image[label == IGNORE] = smear[label == IGNORE]
    if rng.random() < 0.5:
        _stamp_logo(image[6:18, 8:36], label[6:18, 8:36])
    stripe = slice(0, int(rng.integers(2, 4)))
    turns = rng.integers(4)
    np.rot90(image, turns)[stripe] = 0
    np.rot90(label, turns)[stripe] = IGNORE
    return image, label


def _stamp_logo(image, label):
    """Stamp a camera logo, pale bars on a dark plate, over a whole image part."""
    image[:] = (40, 40, 45)
    for x, length in ((4, 8), (9, 5), (14, 8), (19, 3)):
        image[10 - length : 10, x : x + 3] = (225, 225, 230)
    label[:] = IGNORE
