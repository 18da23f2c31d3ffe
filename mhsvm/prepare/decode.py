"""Decode image files to the pixels of images and masks.

Both accept the formats of `mhsvm.prepare.formats` and are rotated by their EXIF orientation. Alpha is composited over
black, so transparent pixels are dark in an image and background in a mask; `mhsvm.prepare.mask_levels` says how
palettes, colors and transparency of masks are read, and which of them are refused.
"""

import numpy as np
from PIL import Image

from mhsvm.prepare.mask_levels import FAINT, present, read_levels, sixteen_bit
from mhsvm.prepare.mask_levels import MaskLevelsError as MaskLevelsError
from mhsvm.prepare.raster import Raster, from_pillow, open_raster

# Value of pixels in a class mask that losses and metrics ignore.
IGNORE = 255


def decode_image(content: bytes) -> np.ndarray:
    """Decode an image file of any mode to RGB; 16-bit gray levels are divided by 257.

    Args:
        content: A file of a format in `mhsvm.prepare.formats.FORMATS`.
    Returns:
        uint8 (height, width, 3), upright.
    Raises:
        ValueError: The file has another format, is damaged, needs a package that is not installed, or has more than 89
            million pixels, several frames or 32-bit pixels.
    """
    return _rgb(open_raster(content))


def to_rgb(image: Image.Image) -> np.ndarray:
    """Convert an opened image of any mode to RGB, uint8 (height, width, 3), upright by its EXIF orientation.

    Raises:
        ValueError: The image has 32-bit pixels.
    """
    return _rgb(from_pillow(image))


def decode_mask(content: bytes, num_classes: int = 1, threshold: float | None = None) -> np.ndarray:
    """Decode a mask file to a binary mask or to class indices.

    A binary mask (`num_classes` 1) has the levels 0 and 255, 0 and 1, or 0 and 65535 at 16 bits, or black and one
    color. A class mask has the levels 0..num_classes-1 and 255 = ignore; palette images are read by index.

    Args:
        content: A file of a format in `mhsvm.prepare.formats.FORMATS`.
        num_classes: 1 for a binary mask, k >= 2 for class indices.
        threshold: Fraction of full scale, in (0, 1], at and above which a gray level is lesion, in a mask with more
            levels than a binary one. None refuses gray levels.
    Returns:
        uint8 (height, width), upright: 0 and 1, or class indices and 255.
    Raises:
        MaskLevelsError: A binary mask has gray levels and there is no threshold, or all of them are below it; or the
            mask has several colors, a level that is no class, or transparency that hides its lesion.
        ValueError: See `decode_image`.
    """
    levels, white = read_levels(open_raster(content), is_class_mask=num_classes > 1)
    found = present(levels)
    if num_classes == 1:
        if len(found) > 2 or not set(found) <= {0, found[-1]} or found[-1] not in (0, 1, 255, white):
            if threshold is not None and found[-1] >= threshold * white:
                return (levels >= threshold * white).astype(np.uint8)
            raise MaskLevelsError(
                f"{len(found)} levels from {found[0]} to {found[-1]}", FAINT if 2 * found[-1] < white else None
            )
        return (levels > 0).astype(np.uint8)
    unknown = [level for level in found if level >= num_classes and level != IGNORE]
    if unknown:
        raise MaskLevelsError(f"levels {', '.join(map(str, unknown[:5]))}{', …' if len(unknown) > 5 else ''}")
    return levels.astype(np.uint8)


def decode_grayscale(content: bytes) -> np.ndarray:
    """Decode a grayscale map, such as probabilities, as fractions of the full scale.

    Args:
        content: A file of a format in `mhsvm.prepare.formats.FORMATS`; 255 is 1, or 65535 at 16 bits.
    Returns:
        float32 (height, width) in 0..1, upright.
    Raises:
        MaskLevelsError: The image has several colors, or transparency that hides its content.
        ValueError: See `decode_image`.
    """
    levels, white = read_levels(open_raster(content))
    return levels.astype(np.float32) / np.float32(white)


def _rgb(raster: Raster) -> np.ndarray:
    image = raster.image
    if raster.white != 255:
        levels = np.array(image) if image.mode == "L" else sixteen_bit(image)
        gray = np.rint(levels / (raster.white / 255)).astype(np.uint8)
        return np.repeat(gray[..., None], 3, axis=2)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image)
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def check_threshold(threshold: float | None, num_classes: int) -> None:
    """Make sure that gray levels can be thresholded.

    Raises:
        ValueError: The threshold is no fraction of full scale, or masks have class indices.
    """
    if threshold is None:
        return
    if not 0 < threshold <= 1:
        raise ValueError(
            f"a threshold is a fraction of full scale, in (0, 1]; received {threshold:g}. Level 128 is 0.5"
        )
    if num_classes > 1:
        raise ValueError("class indices are not thresholded: leave `threshold` or `num_classes` out")
