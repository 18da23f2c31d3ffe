"""Normalized surface Dice: the fraction of two boundaries that agree within a tolerance."""

import numpy as np

from mhsvm.metrics.boundary import directed_distances
from mhsvm.metrics.registered import register_metric


@register_metric("nsd", columns=("nsd", "nsd_diagonal"), of_boundary=True)
def surface_dice(
    pred: np.ndarray, target: np.ndarray, *, tolerance: float = 2.0, fraction: float = 0.005
) -> tuple[float, float]:
    """Fraction of the boundary pixels of both masks that are at most a tolerance away from the other boundary.

    Boundaries and distances are those of HD95, see `boundary_distances`. As an overlap, it is 1 if both masks are
    empty, and 0 if one is.

    Args:
        pred, target: bool (h, w).
        tolerance: In pixels, for the first number.
        fraction: Tolerance as a fraction of the image's diagonal, sqrt(h^2 + w^2) pixels, for the second number.
    Returns:
        Two numbers in 0..1.
    Source: Nikolov et al. 2018, arXiv 1809.04430, with boundary pixels in place of their surface elements, as in MONAI.
    """
    if not (pred.any() and target.any()):
        value = float(pred.any() == target.any())
        return value, value
    distances = np.concatenate(directed_distances(pred, target))
    within = (distances <= tolerance).mean(), (distances <= fraction * np.hypot(*pred.shape)).mean()
    return float(within[0]), float(within[1])
