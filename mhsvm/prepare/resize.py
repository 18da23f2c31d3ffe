"""Resizing for preparation and prediction.

Shape letters: H W original size, h w new size, in pixels. A size is one number or (h, w).
"""

import numpy as np
from PIL import Image

from mhsvm.prepare.decode import IGNORE

IMAGE_METHOD = "whole frame, Pillow's antialiased bilinear"
MASK_METHOD = "area coverage in 255ths, exact"
CLASS_METHOD = "class of the largest area, exact"

Size = int | tuple[int, int]


def as_height_width(size: Size) -> tuple[int, int]:
    """Convert a size, one number or (h, w), to (h, w).

    Raises:
        ValueError: A number is below 1, or there are not one or two numbers.
    """
    h, w = (size, size) if isinstance(size, int) else size
    if h < 1 or w < 1:
        raise ValueError(f"height and width of a size are at least 1 pixel; got {size}")
    return h, w


def resize_image(image: np.ndarray, size: Size) -> np.ndarray:
    """Resize an image from uint8 (H, W, 3) to uint8 (h, w, 3); an image of the right size is returned unchanged."""
    h, w = as_height_width(size)
    if image.shape[:2] == (h, w):
        return image
    # One call for each direction: Pillow 13 begins with the vertical one in some portrait images, Pillow 12 never.
    wide = Image.fromarray(image).resize((w, image.shape[0]), Image.Resampling.BILINEAR)
    return np.array(wide.resize((w, h), Image.Resampling.BILINEAR))


def mask_coverage(mask: np.ndarray, size: Size) -> np.ndarray:
    """Compute the fraction of each new pixel's area that a mask covers.

    Args:
        mask: bool, or uint8 of 0 and 1, (H, W).
        size: New size.
    Returns:
        uint8 (h, w), the fraction in units of 1/255, rounded half up: half coverage is 128.
    """
    h, w = as_height_width(size)
    if mask.shape == (h, w):
        return mask.astype(np.uint8) * np.uint8(255)
    whole = mask.shape[0] * mask.shape[1]
    return ((_areas(mask, h, w) * 510 + whole) // (2 * whole)).astype(np.uint8)


def resize_classes(mask: np.ndarray, size: Size, num_classes: int) -> np.ndarray:
    """Select the class with the largest fraction of each new pixel's area; on a tie, the lower index.

    Args:
        mask: uint8 (H, W) of 0..num_classes-1 and 255 = ignore.
        size: New size.
        num_classes: k.
    Returns:
        uint8 (h, w) of the same values; 255 where the ignored area is larger than the area of any class.
    """
    h, w = as_height_width(size)
    if mask.shape == (h, w):
        return mask
    values = np.array([*range(num_classes), IGNORE], np.uint8)
    best, winner = np.full((h, w), -1, np.int64), np.zeros((h, w), np.uint8)
    for value in values:
        area = _areas(mask == value, h, w)
        winner = np.where(area > best, value, winner)
        best = np.maximum(best, area)
    return winner


def _areas(mask: np.ndarray, h: int, w: int) -> np.ndarray:
    """Covered area of each box of an h x w grid over (H, W), in units of 1/(h*w) pixel: int64 (h, w), at most H*W."""
    # Integers make the result exact: half of a box is the same on every machine.
    return _box_sums(_box_sums(mask, h).T, w).T


def _box_sums(values: np.ndarray, num: int) -> np.ndarray:
    """Integrals over `num` equal boxes along the first axis, times `num`; values are constant within a pixel."""
    length = len(values)
    whole, rest = np.divmod(np.arange(num + 1) * length, num)
    # Sums of slices are many times faster than a cumulative sum over megapixels, and need no memory.
    integrals = np.zeros((num + 1, *values.shape[1:]), np.int64)
    for box in range(num):
        covered = values[whole[box] : whole[box + 1]].sum(axis=0, dtype=np.int64)
        integrals[box + 1] = integrals[box] + covered
    part = values[np.minimum(whole, length - 1)] * rest[:, None]
    return np.diff(integrals * num + part, axis=0)
