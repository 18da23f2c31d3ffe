"""A pigmented lesion: border, pigment, veil and structures."""

from dataclasses import dataclass

import numpy as np

from mhsvm.synthetic.plane import Plane, blend, step
from mhsvm.synthetic.skin import MELANIN, absorb, lab_to_srgb

# Fraction of the image that the lesion covers: log-normal, clipped. The median of ISIC 2017's training set is 13 %.
_MEDIAN_FRACTION, _FRACTION_SPREAD, _FRACTION_RANGE = 0.13, 0.9, (0.02, 0.6)


@dataclass(frozen=True)
class Border:
    """Position and shape of a lesion.

    Args:
        depth: Approximate distance to the border, (h, w), positive inside; the mask is depth > 0.
        radius: Approximate mean radius, in the unit of the plane.
        angle: Direction of each pixel from the center, (h, w), in radians.
    """

    depth: np.ndarray
    radius: float
    angle: np.ndarray


def generate_border(plane: Plane, rng: np.random.Generator, visible: np.ndarray) -> Border:
    """Generate a border of one to three overlapping rough lobes that covers a random fraction of the image.

    Args:
        plane: Plane of the image.
        rng: Random generator.
        visible: Visible area of the opening, bool (h, w); the fraction refers to it.
    """
    fraction = np.clip(_MEDIAN_FRACTION * np.exp(rng.normal(0, _FRACTION_SPREAD)), *_FRACTION_RANGE)
    # Small lesions are near the middle; large ones may exceed the image.
    center = rng.normal(0, 0.05 + 0.12 * np.sqrt(fraction), 2).clip(-0.25, 0.25)
    warp = rng.uniform(0.0, 0.05) * np.sqrt(fraction)
    x = plane.x - center[0] + warp * plane.noise(rng, 5)
    y = plane.y - center[1] + warp * plane.noise(rng, 5)
    reach = np.sqrt(fraction / np.pi)
    roughness = rng.uniform(0.03, 0.25)
    num_lobes = int(rng.choice([1, 2, 3], p=[0.7, 0.2, 0.1]))
    relative = np.full_like(x, np.inf)
    for lobe in range(num_lobes):
        # A shift of less than a radius keeps the lobes overlapping.
        shift = rng.uniform(-0.5, 0.5, 2) * reach * (lobe > 0)
        own = _lobe(rng, x - shift[0], y - shift[1], roughness) * rng.uniform(1.0, 1.5 if lobe else 1.0)
        relative = np.minimum(relative, own)
    # The scale that gives exactly this fraction is the value of the pixel with this rank.
    rank = int(fraction * relative.size)
    scale = np.partition(np.where(visible, relative, np.inf), rank, axis=None)[rank]
    angle = np.arctan2(y, x)
    # Nothing is marked outside the opening, because experts mark visible pixels only.
    depth = np.where(visible, scale - relative, np.minimum(scale - relative, -1e-6))
    return Border(depth.astype(np.float32), float(scale), angle)


def _lobe(rng: np.random.Generator, x: np.ndarray, y: np.ndarray, roughness: float) -> np.ndarray:
    """Distance from the center of a lobe, divided by its relative radius in that direction."""
    turn, stretch = rng.uniform(0, np.pi), np.exp(rng.uniform(0, 0.3))
    along = (x * np.cos(turn) + y * np.sin(turn)) / stretch
    across = (y * np.cos(turn) - x * np.sin(turn)) * stretch
    # The boundary as a table over directions: noise with amplitudes that decrease with the frequency.
    frequencies = np.arange(2, 40)
    amplitudes = roughness * frequencies ** -rng.uniform(1.0, 1.6) * rng.standard_normal(len(frequencies))
    phases = rng.uniform(0, 2 * np.pi, len(frequencies))
    directions = np.linspace(-np.pi, np.pi, 721)
    boundary = np.exp((amplitudes * np.cos(np.outer(directions, frequencies) + phases)).sum(1))
    return np.hypot(along, across) / np.interp(np.arctan2(across, along), directions, boundary)


def paint_lesion(plane: Plane, rng: np.random.Generator, skin: np.ndarray, border: Border) -> np.ndarray:
    """Paint the lesion on the skin, (h, w, 3)."""
    softness = np.exp(rng.uniform(np.log(0.01), np.log(0.1))) * (0.4 + 2 * border.radius)
    cover = step(border.depth, softness)
    melanin, hemoglobin = _densities(plane, rng, border)
    # A flush around the lesion, and pigment that fades outwards.
    flush = rng.uniform(0, 0.25) * np.exp(-np.maximum(-border.depth, 0) / 0.05)
    # Deep pigment appears gray, shallow pigment brown.
    color = MELANIN + rng.uniform(0, 0.6) * (1 - MELANIN)
    image = skin * absorb(melanin=melanin * cover, hemoglobin=hemoglobin * cover + flush, melanin_color=color)
    if rng.random() < 0.25:
        veil = lab_to_srgb(rng.uniform(45, 65), rng.uniform(-4, 4), rng.uniform(-14, 0))
        patch = step(plane.noise(rng, 4) - 0.3, 1.2) * cover * step(border.depth - 0.1 * border.radius, 0.1)
        image = blend(image, veil, rng.uniform(0.3, 0.7) * patch)
    if rng.random() < 0.2:
        scar = step(plane.noise(rng, 5) - 1.0, 1.0) * cover * step(border.depth - 0.2 * border.radius, 0.1)
        image = blend(image, skin * 1.1, 0.6 * scar)
    return image


def _densities(plane: Plane, rng: np.random.Generator, border: Border) -> tuple[np.ndarray, np.ndarray]:
    """Densities of melanin and hemoglobin in the lesion, (h, w) each, with a lower bound to keep it visible."""
    inner = np.clip(border.depth / border.radius, 0, 1)
    profile = 1 + rng.uniform(-0.25, 0.6) * (inner - 0.3)
    mottling = rng.uniform(0.05, 0.3) * plane.noise(rng, 6) + rng.uniform(0.05, 0.2) * plane.noise(rng, 18)
    mottling += rng.uniform(0.05, 0.2) * plane.noise(rng, 50)
    structure = np.zeros(plane.size, np.float32)
    if rng.random() < 0.4:
        # Pigment network: a mesh with lighter holes.
        pitch = rng.uniform(0.02, 0.035)
        structure += rng.uniform(0.15, 0.5) * (0.5 - plane.dots(plane.mesh(rng, pitch), 0.3 * pitch))
    if rng.random() < 0.45:
        globules = plane.points(rng, int(rng.integers(30, 400)))
        structure += rng.uniform(0.3, 0.8) * plane.dots(globules, rng.uniform(0.003, 0.009))
    if rng.random() < 0.15:
        # Milia-like cysts: light dots.
        structure -= 0.6 * plane.dots(plane.points(rng, int(rng.integers(20, 150))), rng.uniform(0.003, 0.006))
    if rng.random() < 0.2:
        streaks = np.cos(border.angle * rng.integers(18, 40) + plane.noise(rng, 6))
        structure += rng.uniform(0.2, 0.5) * streaks * np.exp(-(inner**2) / 0.03)
    variation = np.maximum(profile + mottling + structure, 0.45)
    if rng.random() < 0.15:
        # Weakly pigmented, mostly blood.
        return rng.uniform(0.2, 0.5) * variation, rng.uniform(0.4, 0.8) * variation
    return np.exp(rng.uniform(np.log(0.5), np.log(2.2))) * variation, rng.uniform(0.0, 0.25) * variation
