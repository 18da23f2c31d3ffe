"""Boundary IoU: the IoU of the bands of two masks along their boundaries."""

import numpy as np

from mhsvm.metrics.boundary import bounding_box
from mhsvm.metrics.registered import register_metric


@register_metric("boundary_iou", of_boundary=True)
def boundary_iou(pred: np.ndarray, target: np.ndarray, *, fraction: float = 0.02) -> float:
    """IoU of the pixels of each mask that are at most a distance away from its outside.

    Distances are those of erosions with 3 x 3 pixels (the larger one of both coordinates), and everything beyond the
    image is outside, as in the authors' code. As an overlap, it is 1 if both masks are empty, and 0 if one is.

    Args:
        pred, target: bool (h, w).
        fraction: The distance as a fraction of the image's diagonal, rounded to whole pixels, at least 1.
    Returns:
        A number in 0..1.
    Source: Cheng et al. 2021, arXiv 2103.16562, and https://github.com/bowenc0221/boundary-iou-api.
    """
    if not (pred.any() and target.any()):
        return float(pred.any() == target.any())
    width = max(1, round(fraction * float(np.hypot(*pred.shape))))
    box = bounding_box(pred | target)
    one, other = (_band(np.ascontiguousarray(mask[box]), width) for mask in (pred, target))
    return int((one & other).sum()) / int((one | other).sum())


def _band(mask: np.ndarray, width: int) -> np.ndarray:
    # imported here because most uses of the metrics do not need it
    from scipy.ndimage import minimum_filter

    # so many erosions with 3 x 3 pixels are one with a larger square
    return mask & ~minimum_filter(mask.view(np.uint8), 2 * width + 1, mode="constant", cval=0).view(bool)
