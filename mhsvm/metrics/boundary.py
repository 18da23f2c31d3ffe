"""Distances between the boundaries of two masks.

Shape letters: b batch, h w size, k classes, c scored classes (1, or k - 1 without the background).
"""

import numpy as np
from torch import Tensor

from mhsvm.metrics.registered import measure_masks, register_metric
from mhsvm.system import name_user

BOUNDARY = ("hd95", "assd")


def boundary_distances(pred: Tensor, target: Tensor, *, num_classes: int = 1) -> Tensor:
    """Measure the distances between the boundaries of predictions and targets.

    The boundary of a mask consists of its pixels with one of the four neighbors outside the mask. Everything beyond the
    image is outside. Distances are Euclidean, from each boundary pixel to the nearest one of the other mask, in both
    directions.

    Args:
        pred: (b, h, w) or (b, 1, h, w): binary masks (bool, or 0 and 1), or class indices 0..k-1.
        target: Targets like `pred`. With several classes, pixels with 255 count as background in both.
        num_classes: 1 for binary masks, else k.
    Returns:
        float64 (b, c, 2), on the CPU, in pixels: HD95, the larger 95th percentile of both directions, and ASSD, the
        mean of the distances of both directions. NaN if prediction or target is empty and has no boundary.
    Raises:
        ValueError: Shapes differ, or values are no classes or no whole numbers.
    Source: boundaries and distances are computed by MONAI (`monai.metrics.utils`).
    """
    return measure_masks(pred, target, metrics=("boundary",), num_classes=num_classes)


@register_metric("boundary", columns=BOUNDARY, unit="pixels")
def boundary(pred: np.ndarray, target: np.ndarray) -> tuple[float, float]:
    """HD95 and ASSD of two masks, bool (h, w); NaN where one is empty."""
    return _distances(pred, target) if pred.any() and target.any() else (np.nan, np.nan)


def _distances(pred: np.ndarray, target: np.ndarray) -> tuple[float, float]:
    name_user()
    # imported here because it takes seconds, and most uses of the metrics do not need it
    from monai.metrics.utils import get_mask_edges, get_surface_distance

    box = _bounding_box(pred | target)
    edges = get_mask_edges(pred[box], target[box], crop=False)
    directions = get_surface_distance(*edges), get_surface_distance(*edges[::-1])
    hd95 = max(np.percentile(distances, 95) for distances in directions)
    return float(hd95), float(np.concatenate(directions).mean(dtype=np.float64))


def _bounding_box(mask: np.ndarray) -> tuple[slice, slice]:
    # pixels outside the box belong to neither mask, like pixels outside the image
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
