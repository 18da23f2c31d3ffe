"""Distances between the boundaries of two masks.

Shape letters: b batch, h w size, k classes, c scored classes (1, or k - 1 without the background).
"""

import numpy as np
from torch import Tensor

from mhsvm.metrics.registered import measure_masks, register_metric

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
    Source: `monai.metrics.utils`, which finds the same boundaries and distances.
    """
    return measure_masks(pred, target, metrics=("boundary",), num_classes=num_classes)


@register_metric("boundary", columns=BOUNDARY, unit="pixels", of_boundary=True)
def boundary(pred: np.ndarray, target: np.ndarray) -> tuple[float, float]:
    """HD95 and ASSD of two masks, bool (h, w); NaN where one is empty."""
    if not (pred.any() and target.any()):
        return np.nan, np.nan
    # rounded as MONAI does, so that results agree with those of earlier versions in every digit
    directions = [distances.astype(np.float32) for distances in directed_distances(pred, target)]
    hd95 = max(np.percentile(distances, 95) for distances in directions)
    return float(hd95), float(np.concatenate(directions).mean(dtype=np.float64))


def directed_distances(pred: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance of each boundary pixel of either mask to the nearest one of the other.

    Args:
        pred, target: bool (h, w), neither of them empty.
    Returns:
        float64, in pixels: from the boundary of the prediction to that of the target, and back.
    """
    # a tree of the boundary pixels takes half the time of a distance transform of the whole image, at 2048 x 2048 a
    # tenth; imported here because most uses of the metrics do not need it
    from scipy.spatial import KDTree

    box = bounding_box(pred | target)
    ends = [np.argwhere(boundary_pixels(mask[box])) for mask in (pred, target)]
    trees = [KDTree(points, compact_nodes=False, balanced_tree=False) for points in ends]
    there, back = (tree.query(points)[0] for points, tree in zip(ends, trees[::-1], strict=True))
    return there, back


def boundary_pixels(mask: np.ndarray) -> np.ndarray:
    """Pixels of a mask with one of the four neighbors outside of it or of the image: bool (h, w) -> bool (h, w)."""
    around = np.pad(mask, 1)
    inside = around[:-2, 1:-1] & around[2:, 1:-1] & around[1:-1, :-2] & around[1:-1, 2:]
    return mask & ~inside


def bounding_box(mask: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns from the first to the last pixel of a mask that has one.

    Pixels outside the box belong to the mask as little as pixels outside the image.
    """
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
