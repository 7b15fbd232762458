"""Paint scenes of the generated demo set: labelled streets and rooms.

The data set tests whether a network uses the scene around a pixel. A street and a room
are painted on the same stage, a box seen in perspective. Its three surfaces look the
same in both kinds of scene and differ only in their label (see ``AMBIGUOUS_PAIRS``). A
few small props elsewhere in the image, for instance a car or a sofa, identify the kind
of scene.

Only :func:`paint_things` knows the kind of scene, and only for the props. Every
other random choice comes from a stream that does not depend on the kind. A street
and a room painted from the same numbers therefore agree in every pixel that no prop
covers.

To add a class: append it to ``classes.COLOURS``, write a painter like
``things.paint_car`` and enter it in ``PROPS`` (one kind of scene) or ``SHARED``
(both kinds) of things.py.

Images are uint8 RGB, shape (H, W, 3). Labels are uint8 class indices, shape (H, W).
Points are (x, y) in pixels, with y pointing down.
"""
from functools import partial
from typing import Optional, Tuple

import numpy as np

from .camera import hide_regions, light_image
from .classes import KINDS, SURFACES
from .stage import draw_box, paint_stage
from .things import paint_things, plan_things

__all__ = ['VERSION', 'paint_scene']

VERSION = 1  # raise whenever the pixels of any scene change
STREAMS = ('kind', 'box', 'stage', 'things', 'paint', 'light', 'hide')


def paint_scene(seed: int, index: int,
                kind: Optional[str] = None) -> Tuple[np.ndarray, np.ndarray]:
    """Paint one scene.

    Equal arguments give equal pixels in any process and in any order of calls. (A
    different processor or version of NumPy or OpenCV may round a few pixels by one.)

    Args:
        seed: number of the data set, at least 0.
        index: number of the scene, at least 0. Scenes ``2k`` and ``2k + 1`` are one
            street and one room, in random order.
        kind: 'street' or 'room', to force the kind of scene.

    Returns:
        Image, uint8 (H, W, 3) RGB, and label, uint8 (H, W), with 160 <= H <= 200
        and 208 <= W <= 256.

    Raises:
        ValueError: when ``seed`` or ``index`` is negative or ``kind`` is unknown.
    """
    if seed < 0 or index < 0:
        raise ValueError(f'seed and index must be >= 0, got {seed} and {index}')
    if kind is None:
        kind = choose_kind(seed, index)
    if kind not in KINDS:
        raise ValueError(f'kind must be one of {KINDS}, got {kind!r}')
    stream = partial(random_stream, seed, index)

    box = draw_box(stream('box'))
    canvas = paint_stage(box, SURFACES[kind], stream('stage'))
    things = plan_things(box, stream('things'))
    paint_things(canvas, things, kind, stream)
    image = light_image(canvas.image, stream('light'))
    return hide_regions(image, canvas.label, stream('hide'))


def random_stream(seed: int, index: int, purpose: str,
                  number: int = 0) -> np.random.Generator:
    """Return the random generator of one purpose in one scene.

    A generator per purpose keeps the choices independent: drawing more numbers in
    one step does not change the numbers of another.
    """
    key = [seed, index, STREAMS.index(purpose), number]
    return np.random.Generator(np.random.PCG64(key))


def choose_kind(seed: int, index: int) -> str:
    """Return the kind of a scene; of scenes 2k and 2k + 1 one is a street."""
    first = int(random_stream(seed, index // 2, 'kind').integers(2))
    return KINDS[(first + index) % 2]
