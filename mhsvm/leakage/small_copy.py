"""Small grayscale copies of images, in which near-duplicates are searched."""

import numpy as np
from PIL import Image
from scipy import fft

# Side in pixels of the last comparison; smaller images lack the structure that distinguishes lesions.
MIN_SIDE = 128
# Variance in pixels of the blur of 128 x 128 copies of 256 x 256 images, on which the scores in
# `mhsvm.leakage.duplicates` were inspected.
_USUAL_BLUR = 1 / 16
# More cannot be undone without amplifying noise; smaller images than 128 x 128 would need it.
_MOST_EXCESS = 0.15


def gray_copy(image: np.ndarray, original_size: tuple[int, int]) -> np.ndarray:
    """A small grayscale copy, of the same sharpness for each size of the image and its original.

    Args:
        image: uint8 (h, w, 3).
        original_size: Height and width in pixels before the image was resized.
    Returns:
        float32 (MIN_SIDE, MIN_SIDE), in gray levels 0 to 255.
    """
    small = Image.fromarray(image).convert("L").resize((MIN_SIDE, MIN_SIDE), Image.Resampling.BOX)
    gray = np.asarray(small, np.float32)
    excess = [
        min(_blur_variance(side, original) - _USUAL_BLUR, _MOST_EXCESS)
        for side, original in zip(image.shape[:2], original_size, strict=True)
    ]
    if not any(excess):
        return gray
    # a Gaussian of this variance, undone, or applied where the copy is sharper than usual
    squares = (np.pi * np.arange(MIN_SIDE, dtype=np.float32) / MIN_SIDE) ** 2 / 2
    gains = np.exp(np.float32(excess[0]) * squares)[:, None] * np.exp(np.float32(excess[1]) * squares)
    return fft.idctn(fft.dctn(gray, norm="ortho") * gains, norm="ortho")


def _blur_variance(side: int, original: int) -> float:
    """Variance of the filters from an original side to the small copy, in pixels of the copy.

    The first filter is a triangle of the width of two pixels of the larger step, the second is a box.
    """
    scale, shrinking = side / MIN_SIDE, original / side
    first = 0.0 if original == side else max(1.0, 1 / shrinking) ** 2 / 6 + 1 / (12 * max(1.0, shrinking) ** 2)
    return first / scale**2 + max(0.0, 1 - 1 / scale**2) / 12


def halve(grays: np.ndarray) -> np.ndarray:
    """Means of 2 x 2 pixels: (n, s, s) -> (n, s / 2, s / 2)."""
    num, side, _ = grays.shape
    return grays.reshape(num, side // 2, 2, side // 2, 2).mean((2, 4))
