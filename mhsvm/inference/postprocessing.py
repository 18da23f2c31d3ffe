"""Cleaning of predicted masks: small regions and holes."""

import numpy as np
from scipy import ndimage

# Regions are 8-connected, so their holes are 4-connected.
_EIGHT_NEIGHBORS = np.ones((3, 3), bool)


def clean_mask(mask: np.ndarray, *, largest_component: bool, fill_holes: bool) -> np.ndarray:
    """Keep the largest region of each class, then fill the background that a class encloses.

    Args:
        mask: uint8 (h, w), 0 is background, 1 is lesion, or class indices.
        largest_component: Turn every region but the largest into background; of equal ones the upper stays.
        fill_holes: Give background that one class encloses that class.
    Returns:
        uint8 (h, w), a new array.
    """
    cleaned = mask.copy()
    for label in np.unique(mask[mask > 0]).tolist():
        if largest_component:
            cleaned[(mask == label) & ~_largest_region(mask == label)] = 0
    for label in np.unique(cleaned[cleaned > 0]).tolist():
        if fill_holes:
            cleaned[ndimage.binary_fill_holes(cleaned == label) & (cleaned == 0)] = label
    return cleaned


def count_regions(region: np.ndarray) -> int:
    """Count the connected components of a mask, bool (h, w)."""
    return ndimage.label(region, _EIGHT_NEIGHBORS)[1]


def _largest_region(region: np.ndarray) -> np.ndarray:
    parts, _ = ndimage.label(region, _EIGHT_NEIGHBORS)
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    return parts == sizes.argmax()
