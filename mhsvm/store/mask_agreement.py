"""Agreement of two masks of prepared sets."""

import numpy as np

_HALF, _IGNORE = 128, 255


def mask_dice(first: np.ndarray, second: np.ndarray, num_classes: int) -> float:
    """Dice of the foregrounds of two prepared masks; 1 if both are empty.

    Args:
        first, second: uint8 (h, w): lesion coverage 0..255, or class indices with 255 = ignore.
        num_classes: 1 for coverage, k >= 2 for class indices, of which all but 0 are foreground.
    """
    one, other = (mask >= _HALF if num_classes == 1 else mask % _IGNORE > 0 for mask in (first, second))
    total = int(one.sum()) + int(other.sum())
    return 2 * int((one & other).sum()) / total if total else 1.0
