"""Distances between the outlines of two masks.

Shape letters: b images, h w map, k classes, c scored classes (1, or k - 1 without the background).
"""

import numpy as np
from torch import Tensor

from mhsvm.metrics.registered import measure_masks, register_metric

BOUNDARY = ("hd95", "assd")


def boundary_distances(pred: Tensor, target: Tensor, *, num_classes: int = 1) -> Tensor:
    """Measure how far apart the outlines of prediction and truth lie.

    An outline is the mask's pixels that have one of the four neighbours outside the mask; beyond the frame all is
    outside. Distances are Euclidean, from each pixel of one outline to the nearest of the other, both ways.

    Args:
        pred: (b, h, w) or (b, 1, h, w): lesion or not (bool, or 0 and 1), or class indices 0..k-1.
        target: The same of the truth; with several classes pixels of 255 count as background in both.
        num_classes: 1 for lesion or not, else k.
    Returns:
        float64 (b, c, 2), on the CPU, in pixels: HD95, the larger of both ways' 95th percentiles, and ASSD, the mean
        of all distances of both ways. NaN where prediction or truth is empty: there is no outline to measure from.
    Raises:
        ValueError: Shapes differ, values lie outside the classes or are not whole numbers.
    Source: the outlines and distances are MONAI's (`monai.metrics.utils`).
    """
    return measure_masks(pred, target, metrics=("boundary",), num_classes=num_classes)


@register_metric("boundary", columns=BOUNDARY, unit="pixels")
def boundary(pred: np.ndarray, target: np.ndarray) -> tuple[float, float]:
    """HD95 and ASSD of two masks, bool (h, w); NaN where one is empty."""
    return _distances(pred, target) if pred.any() and target.any() else (np.nan, np.nan)


def _distances(found: np.ndarray, there: np.ndarray) -> tuple[float, float]:
    # seconds to import, for what most uses of the metrics never call
    from monai.metrics.utils import get_mask_edges, get_surface_distance

    box = _bounding_box(found | there)
    edges = get_mask_edges(found[box], there[box], crop=False)
    ways = get_surface_distance(*edges), get_surface_distance(*edges[::-1])
    hd95 = max(np.percentile(way, 95) for way in ways)
    return float(hd95), float(np.concatenate(ways).mean(dtype=np.float64))


def _bounding_box(mask: np.ndarray) -> tuple[slice, slice]:
    # what lies outside the box belongs to neither mask, like what lies outside the frame
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
