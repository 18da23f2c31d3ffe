"""Masks of several raters, who differ as people do: each draws tighter or wider, and wavers along the boundary."""

import numpy as np
from scipy import ndimage

# Both in fractions of the shorter side: the habit of a rater, and the wavering along a boundary.
_HABIT, _WAVERING = 0.01, 0.02


def redraw_mask(mask: np.ndarray, *, seed: int, index: int, rater: int) -> np.ndarray:
    """Draw the mask of a rater by another mask.

    Args:
        mask: uint8 (h, w), 255 in the lesion and 0 elsewhere.
        seed, index: Seed and position of the sample, see `generate_sample`.
        rater: Number of the rater, 1 or more; the habit of a rater is the same on all images of a seed.
    Returns:
        uint8 (h, w), 255 in the lesion and 0 elsewhere.
    """
    side = min(mask.shape)
    habit = np.random.default_rng([seed, rater]).normal()
    wavering = ndimage.gaussian_filter(np.random.default_rng([seed, index, rater]).normal(size=mask.shape), side / 16)
    wavering /= max(float(wavering.std()), 1e-12)
    depth = ndimage.distance_transform_edt(mask) - ndimage.distance_transform_edt(mask == 0)
    drawn = depth + side * (_HABIT * habit + _WAVERING * wavering) > 0
    return drawn.astype(np.uint8) * 255 if drawn.any() else mask
