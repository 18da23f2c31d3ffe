"""A synthetic dermoscopic image and its mask."""

import numpy as np

from mhsvm.synthetic import artifacts
from mhsvm.synthetic.lesion import generate_border, paint_lesion
from mhsvm.synthetic.plane import Plane
from mhsvm.synthetic.skin import generate_light, generate_skin

# Frequencies of artifacts, roughly as in the public sets.
_HAIR, _RULER, _BUBBLES, _REFLECTIONS, _INK, _STICKER, _OPENING = 0.4, 0.25, 0.15, 0.15, 0.1, 0.08, 0.35


def generate_sample(*, seed: int, index: int, size: tuple[int, int] = (256, 256)) -> tuple[np.ndarray, np.ndarray]:
    """Generate an image that looks like dermoscopy, and the mask of its lesion.

    The same (seed, index) gives the same scene at every size and in a set of any size.

    Args:
        seed: Seed of the set, >= 0.
        index: Position in the set, >= 0.
        size: Height and width in pixels.
    Returns:
        Image uint8 (h, w, 3) in RGB, and mask uint8 (h, w), 255 in the lesion and 0 elsewhere.
    """
    # Every layer has its own generator, so that a change of one layer does not affect the others.
    streams = (np.random.default_rng([seed, index, layer]) for layer in range(100))
    plane = Plane(size)
    rng = next(streams)
    opening = artifacts.generate_opening(plane, rng) if rng.random() < _OPENING else np.ones(size, np.float32)
    border = generate_border(plane, next(streams), opening > 0.5)
    lesion = border.depth > 0
    image = paint_lesion(plane, next(streams), generate_skin(plane, next(streams)), border)
    for chance, add in (
        (_HAIR, artifacts.add_hair),
        (_RULER, artifacts.add_ruler),
        (_INK, artifacts.add_ink),
        (_BUBBLES, artifacts.add_bubbles),
        (_REFLECTIONS, artifacts.add_reflections),
    ):
        rng = next(streams)
        if rng.random() < chance:
            image = add(plane, rng, image)
    rng = next(streams)
    if rng.random() < _STICKER:
        image = artifacts.add_sticker(plane, rng, image, lesion)
    image = image * generate_light(plane, next(streams)) * (0.02 + 0.98 * opening[..., None])
    image = artifacts.add_camera(plane, next(streams), image)
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8), lesion.astype(np.uint8) * 255
