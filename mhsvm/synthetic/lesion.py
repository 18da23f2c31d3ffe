"""A pigmented lesion: its border, and the pigment, veil and structures inside it."""

from dataclasses import dataclass

import numpy as np

from mhsvm.synthetic.plane import Plane, blend, step
from mhsvm.synthetic.skin import MELANIN, absorb, lab_to_srgb

# Lesion share of the frame: log-normal, clipped; ISIC 2017's training set has median 13 %, mean 19 %.
_MEDIAN_SHARE, _SHARE_SPREAD, _SHARE_RANGE = 0.13, 0.9, (0.02, 0.6)


@dataclass(frozen=True)
class Border:
    """Where a lesion is.

    Args:
        depth: About the distance to the border, (h, w), positive inside; the mask is depth > 0.
        radius: About the lesion's mean radius, in the plane's unit.
        angle: Direction of each cell as seen from the centre, (h, w), radians.
    """

    depth: np.ndarray
    radius: float
    angle: np.ndarray


def draw_border(plane: Plane, rng: np.random.Generator, visible: np.ndarray) -> Border:
    """One to three overlapping lobes with rough outlines, as large as a drawn share of the frame.

    Args:
        visible: What the dermatoscope's opening shows, bool (h, w): the lesion's share is counted there.
    """
    share = np.clip(_MEDIAN_SHARE * np.exp(rng.normal(0, _SHARE_SPREAD)), *_SHARE_RANGE)
    # Small lesions are framed in the middle, large ones may leave the frame.
    centre = rng.normal(0, 0.05 + 0.12 * np.sqrt(share), 2).clip(-0.25, 0.25)
    warp = rng.uniform(0.0, 0.05) * np.sqrt(share)
    x = plane.x - centre[0] + warp * plane.noise(rng, 5)
    y = plane.y - centre[1] + warp * plane.noise(rng, 5)
    reach = np.sqrt(share / np.pi)
    roughness = rng.uniform(0.03, 0.25)
    num_lobes = int(rng.choice([1, 2, 3], p=[0.7, 0.2, 0.1]))
    relative = np.full_like(x, np.inf)
    for lobe in range(num_lobes):
        # Less than a radius, so that lobes overlap.
        shift = rng.uniform(-0.5, 0.5, 2) * reach * (lobe > 0)
        own = _lobe(rng, x - shift[0], y - shift[1], roughness) * rng.uniform(1.0, 1.5 if lobe else 1.0)
        relative = np.minimum(relative, own)
    # The scale at which the outline holds exactly this share: the rank of a pixel, not a fit.
    rank = int(share * relative.size)
    scale = np.partition(np.where(visible, relative, np.inf), rank, axis=None)[rank]
    angle = np.arctan2(y, x)
    # Under the rim of the opening nothing is marked: experts mark what they see.
    depth = np.where(visible, scale - relative, np.minimum(scale - relative, -1e-6))
    return Border(depth.astype(np.float32), float(scale), angle)


def _lobe(rng: np.random.Generator, x: np.ndarray, y: np.ndarray, roughness: float) -> np.ndarray:
    """Distance from the lobe's centre over its outline's relative radius, which varies with the direction."""
    turn, stretch = rng.uniform(0, np.pi), np.exp(rng.uniform(0, 0.3))
    along = (x * np.cos(turn) + y * np.sin(turn)) / stretch
    across = (y * np.cos(turn) - x * np.sin(turn)) * stretch
    # The outline as a table over directions: noise whose amplitude falls with the frequency.
    frequencies = np.arange(2, 40)
    amplitudes = roughness * frequencies ** -rng.uniform(1.0, 1.6) * rng.standard_normal(len(frequencies))
    phases = rng.uniform(0, 2 * np.pi, len(frequencies))
    directions = np.linspace(-np.pi, np.pi, 721)
    outline = np.exp((amplitudes * np.cos(np.outer(directions, frequencies) + phases)).sum(1))
    return np.hypot(along, across) / np.interp(np.arctan2(across, along), directions, outline)


def paint_lesion(plane: Plane, rng: np.random.Generator, skin: np.ndarray, border: Border) -> np.ndarray:
    """Lay the lesion over the skin, (h, w, 3)."""
    softness = np.exp(rng.uniform(np.log(0.01), np.log(0.1))) * (0.4 + 2 * border.radius)
    cover = step(border.depth, softness)
    melanin, haemoglobin = _densities(plane, rng, border)
    # A flush around it, and pigment that fades outwards.
    flush = rng.uniform(0, 0.25) * np.exp(-np.maximum(-border.depth, 0) / 0.05)
    # Pigment deep in the skin looks grey, shallow pigment brown.
    colour = MELANIN + rng.uniform(0, 0.6) * (1 - MELANIN)
    image = skin * absorb(melanin=melanin * cover, haemoglobin=haemoglobin * cover + flush, melanin_colour=colour)
    if rng.random() < 0.25:
        veil = lab_to_srgb(rng.uniform(45, 65), rng.uniform(-4, 4), rng.uniform(-14, 0))
        patch = step(plane.noise(rng, 4) - 0.3, 1.2) * cover * step(border.depth - 0.1 * border.radius, 0.1)
        image = blend(image, veil, rng.uniform(0.3, 0.7) * patch)
    if rng.random() < 0.2:
        scar = step(plane.noise(rng, 5) - 1.0, 1.0) * cover * step(border.depth - 0.2 * border.radius, 0.1)
        image = blend(image, skin * 1.1, 0.6 * scar)
    return image


def _densities(plane: Plane, rng: np.random.Generator, border: Border) -> tuple[np.ndarray, np.ndarray]:
    """Melanin and haemoglobin inside the lesion, (h, w) each, never so thin that the lesion vanishes."""
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
        # Hardly pigmented, mostly blood.
        return rng.uniform(0.2, 0.5) * variation, rng.uniform(0.4, 0.8) * variation
    return np.exp(rng.uniform(np.log(0.5), np.log(2.2))) * variation, rng.uniform(0.0, 0.25) * variation
