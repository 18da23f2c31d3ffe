"""Artifacts of dermoscopic images: hair, rulers, gel bubbles, reflections, ink, stickers, the opening.

Each function adds one kind to an image, float32 (h, w, 3) with 1 = white, and returns the new image.
"""

import numpy as np
from scipy import ndimage

from mhsvm.synthetic.plane import Plane, blend, step

_INK = ((0.30, 0.16, 0.50), (0.18, 0.18, 0.42), (0.42, 0.25, 0.55))
_STICKERS = ((0.02, 0.62, 0.92), (0.45, 0.72, 0.66), (0.70, 0.66, 0.84), (0.90, 0.78, 0.25), (0.88, 0.25, 0.28))


def generate_opening(plane: Plane, rng: np.random.Generator) -> np.ndarray:
    """Transmission of a dermatoscope's round opening, (h, w) in [0, 1]: 1 inside, 0 outside."""
    radius = rng.uniform(0.52, 0.68)
    center_x, center_y = rng.normal(0, 0.02, 2)
    distance = np.hypot(plane.x - center_x, plane.y - center_y)
    return step(radius - distance, rng.uniform(0.006, 0.06)).astype(np.float32)


def add_hair(plane: Plane, rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Add a few or many curved strands, mostly in one direction, dark or light."""
    num = int(np.exp(rng.uniform(np.log(3), np.log(60))))
    combing, spread = rng.uniform(0, 2 * np.pi), rng.uniform(0.2, 1.5)
    color = np.array([0.16, 0.10, 0.07]) * rng.uniform(0.4, 1.6)
    if rng.random() < 0.15:
        color = np.array([0.85, 0.80, 0.72])
    paths = [_strand(plane, rng, combing + rng.normal(0, spread)) for _ in range(num)]
    width = rng.uniform(0.003, 0.008)
    # Thick and thin strands.
    for chosen, factor in ((slice(0, None, 2), 1.0), (slice(1, None, 2), 0.6)):
        image = blend(image, color, rng.uniform(0.6, 0.95) * plane.strokes(paths[chosen], width * factor))
    return image


def _strand(plane: Plane, rng: np.random.Generator, direction: float) -> np.ndarray:
    """Path with a constant change of direction, (24, 2)."""
    length, turn = rng.uniform(0.2, 1.1), rng.normal(0, 1.0)
    directions = direction + turn * np.linspace(-0.5, 0.5, 24)
    steps = np.stack([np.cos(directions), np.sin(directions)], axis=1) * (length / 24)
    path = np.cumsum(steps, axis=0)
    return path - path.mean(0) + plane.points(rng, 1)


def add_ruler(plane: Plane, rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Add millimeter marks: ticks along a side of the image, with or without a base line."""
    direction = rng.choice([0, np.pi / 2]) + rng.normal(0, 0.35)
    along = np.array([np.cos(direction), np.sin(direction)])
    across = np.array([-along[1], along[0]]) * rng.choice([-1, 1])
    middle = -across * rng.uniform(0.36, 0.44)
    pitch, num = rng.uniform(0.018, 0.05), int(rng.integers(8, 22))
    positions = [middle + along * pitch * (number - num / 2) for number in range(num + 1)]
    lengths = [0.034 if number % 5 == 0 else 0.02 for number in range(num + 1)]
    paths = [np.stack([start, start - across * length]) for start, length in zip(positions, lengths, strict=True)]
    if rng.random() < 0.6:
        paths.append(np.stack([positions[0], positions[-1]]))
    marks = plane.strokes(paths, rng.uniform(0.0035, 0.006))
    return blend(image, np.full(3, rng.uniform(0.02, 0.2)), rng.uniform(0.7, 0.95) * marks)


def add_bubbles(plane: Plane, rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Add air bubbles in the gel: rings that are bright on the side of the lamp and dark on the other."""
    lamp = rng.uniform(0, 2 * np.pi)
    for center in plane.points(rng, int(rng.integers(2, 18))):
        radius = np.exp(rng.uniform(np.log(0.008), np.log(0.05)))
        x, y = plane.x - center[0], plane.y - center[1]
        ring = np.exp(-(((np.hypot(x, y) - radius) / 0.0045) ** 2))
        side = np.cos(np.arctan2(y, x) - lamp)
        image = blend(image, (1.0, 0.99, 0.96), 0.75 * ring * np.maximum(side, 0))
        image = blend(image, (0.1, 0.08, 0.08), 0.4 * ring * np.maximum(-side, 0))
    return image


def add_reflections(plane: Plane, rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Add small reflections of the lamps on wet gel."""
    patches = step(plane.noise(rng, rng.uniform(4, 8)) - 1.7, 0.8)
    sparkle = step(plane.noise(rng, 90) - 1.0, 0.8)
    return blend(image, (1.0, 1.0, 1.0), rng.uniform(0.5, 0.95) * patches * sparkle)


def add_ink(plane: Plane, rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Add one or two pen marks near the border of the image, partly worn off."""
    color = _INK[rng.integers(len(_INK))]
    for _ in range(int(rng.integers(1, 3))):
        side = rng.uniform(0, 2 * np.pi)
        center = 0.42 * np.array([np.cos(side), np.sin(side)])
        size = rng.uniform(0.03, 0.09)
        corners = center + np.cumsum(rng.normal(0, size, (int(rng.integers(6, 14)), 2)), axis=0) * 0.6
        path = ndimage.zoom(corners, (8, 1), order=3)
        worn = step(plane.noise(rng, 60) + 0.5, 1.5)
        image = blend(image, color, rng.uniform(0.5, 0.9) * worn * plane.strokes([path], rng.uniform(0.006, 0.018)))
    return image


def add_sticker(plane: Plane, rng: np.random.Generator, image: np.ndarray, keep_off: np.ndarray) -> np.ndarray:
    """Add a colored paper disc at a side of the image, unless it would hide the lesion.

    Args:
        keep_off: Lesion mask, bool (h, w).
    """
    side, radius = rng.uniform(0, 2 * np.pi), rng.uniform(0.2, 0.35)
    center = (0.45 + 0.6 * radius) * np.array([np.cos(side), np.sin(side)])
    cover = step(radius - np.hypot((plane.x - center[0]) / 0.7, plane.y - center[1]), 0.01)
    if (cover[keep_off] > 0.01).any():
        return image
    color = np.array(_STICKERS[rng.integers(len(_STICKERS))]) * (1 + 0.03 * plane.noise(rng, 60)[..., None])
    return blend(image, color, cover)


def add_camera(plane: Plane, rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Add blur and sensor noise."""
    sigma = rng.uniform(0.0, 0.0035) * plane.unit
    image = ndimage.gaussian_filter(image, (sigma, sigma, 0), truncate=2)
    noise = rng.standard_normal(image.shape, dtype=np.float32)
    return image + rng.uniform(0.002, 0.012) * noise
