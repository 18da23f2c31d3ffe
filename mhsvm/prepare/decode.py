"""Decode image files to the pixels of images and masks.

Both accept the same formats and are rotated by their EXIF orientation. Alpha is composited over black, so transparent
pixels are dark in an image and background in a mask.
"""

import io
import struct
import zlib

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

# Value of pixels in a class mask that losses and metrics ignore.
IGNORE = 255

# An explicit list, because Pillow would also try formats that start other programs.
_FORMATS = ("BMP", "PNG", "JPEG", "TIFF")
# Pillow's default limit, kept here so that a caller who raises it in Pillow does not raise it for archives.
_LARGEST_IMAGE = 89_478_485
# Exceptions that Pillow raises on damaged files (found by changing bytes at random) and on oversized ones. The warning
# is raised if warnings are errors.
_PILLOW_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    TypeError,
    OverflowError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)


class MaskLevelsError(ValueError):
    """The file is readable, but its levels are not allowed in a mask."""


def decode_image(content: bytes) -> np.ndarray:
    """Decode an image file of any mode to RGB; 16-bit gray levels are divided by 257.

    Args:
        content: A BMP, PNG, JPEG or TIFF file.
    Returns:
        uint8 (height, width, 3), upright.
    Raises:
        ValueError: The file has another format, is damaged, or has more than 89 million pixels, several frames or
            32-bit pixels.
    """
    return to_rgb(_open_upright(content))


def to_rgb(image: Image.Image) -> np.ndarray:
    """Convert an opened image of any mode to RGB, uint8 (height, width, 3), without rotation.

    Raises:
        ValueError: The image has 32-bit pixels.
    """
    image = _flatten(image)
    if image.mode == "F" or image.mode.startswith("I"):
        gray = np.rint(_sixteen_bit(image) / 257).astype(np.uint8)
        return np.repeat(gray[..., None], 3, axis=2)
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def decode_mask(content: bytes, num_classes: int = 1) -> np.ndarray:
    """Decode a mask file to a binary mask or to class indices.

    A binary mask (`num_classes` 1) has the levels 0 and 255, 0 and 1, or 0 and 65535 at 16 bits; palette images are
    read by color. A class mask has the levels 0..num_classes-1 and 255 = ignore; palette images are read by index.

    Args:
        content: A BMP, PNG, JPEG or TIFF file.
        num_classes: 1 for a binary mask, k >= 2 for class indices.
    Returns:
        uint8 (height, width), upright: 0 and 1, or class indices and 255.
    Raises:
        MaskLevelsError: A binary mask has gray levels, or the mask has colors or a level that is no class.
        ValueError: See `decode_image`.
    """
    image = _open_upright(content)
    if image.mode == "1" or (image.mode == "P" and num_classes > 1):
        levels = np.array(image, np.uint8)
    else:
        levels = _gray_levels(_flatten(image))
    present = _present(levels)
    if num_classes == 1:
        if len(present) > 2 or not set(present) <= {0, present[-1]} or present[-1] not in (0, 1, 255, 65535):
            raise MaskLevelsError(f"{len(present)} levels from {present[0]} to {present[-1]}")
        return (levels > 0).astype(np.uint8)
    unknown = [level for level in present if level >= num_classes and level != IGNORE]
    if unknown:
        raise MaskLevelsError(f"levels {', '.join(map(str, unknown[:5]))}{', …' if len(unknown) > 5 else ''}")
    return levels.astype(np.uint8)


def decode_grayscale(content: bytes) -> np.ndarray:
    """Decode a grayscale map, such as probabilities, as fractions of the full scale.

    Args:
        content: A BMP, PNG, JPEG or TIFF file; 255 is 1, or 65535 at 16 bits.
    Returns:
        float32 (height, width) in 0..1, upright.
    Raises:
        MaskLevelsError: The image has colors.
        ValueError: See `decode_image`.
    """
    image = _open_upright(content)
    if image.mode == "1":
        return np.array(image, np.float32)
    levels = _gray_levels(_flatten(image))
    return levels.astype(np.float32) / np.float32(np.iinfo(np.uint8).max if levels.dtype == np.uint8 else 65535)


def _open_upright(content: bytes) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(content), formats=_FORMATS)
        if image.width * image.height > _LARGEST_IMAGE:
            raise ValueError(f"{image.width} x {image.height} pixels are more than {_LARGEST_IMAGE:,}")
        num_frames = getattr(image, "n_frames", 1)
        if image.format == "TIFF" and num_frames > 1:
            raise ValueError(f"a TIFF of {num_frames} frames; one is expected")
        image.load()
        return ImageOps.exif_transpose(image)
    except UnidentifiedImageError as error:
        raise ValueError(f"no {', '.join(_FORMATS)} file, or a damaged one") from error
    except _PILLOW_ERRORS as error:
        raise ValueError(f"{error}") from error


def _flatten(image: Image.Image) -> Image.Image:
    """Remove palette and alpha."""
    transparent = "transparency" in image.info and image.mode in ("L", "RGB")
    if not transparent and image.mode not in ("P", "PA", "LA", "La", "RGBA", "RGBa"):
        return image
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "black"), image).convert("RGB")


def _sixteen_bit(image: Image.Image) -> np.ndarray:
    levels = np.array(image)
    if image.mode == "F" or levels.min() < 0 or levels.max() > 65535:
        raise ValueError(f"32-bit pixels (mode {image.mode}): save it with 8 or 16 bits")
    return levels


def _gray_levels(image: Image.Image) -> np.ndarray:
    if image.mode == "L":
        return np.array(image)
    if image.mode == "F" or image.mode.startswith("I"):
        return _sixteen_bit(image)
    red, green, blue = np.moveaxis(np.array(image.convert("RGB")), 2, 0)
    if (red != green).any() or (red != blue).any():
        raise MaskLevelsError("colors")
    return red


def _present(levels: np.ndarray) -> list[int]:
    """List the levels that occur, in ascending order; a table is many times faster than sorting megapixels."""
    occurs = np.zeros(65536, bool)
    occurs[levels.ravel()] = True
    return np.flatnonzero(occurs).tolist()
