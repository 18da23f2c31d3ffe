"""Levels of a mask in an opened image of any mode.

Three rules say which pixels are lesion where gray levels alone do not:

- Palette: black and white decide by color. Otherwise a palette whose entry 0 is black, and of which one other entry is
  used, is read by index (annotation tools export index 1 in dark red).
- Colors: black and one other color are background and lesion.
- Transparency: alpha is composited over black, so that transparent pixels are background. A mask in which this hides
  the lesion, or contradicts its colors, is refused.
"""

import numpy as np
from PIL import Image

from mhsvm.prepare.problems import Rule
from mhsvm.prepare.raster import Raster

COLORS = Rule(
    "mask with several colors",
    "save the lesion in white and the rest in black; black and one other color are read, too. Save class masks as "
    "indices, in grayscale or with a palette, and give `num_classes` for them",
)
TRANSPARENT = Rule(
    "mask whose transparency hides or contradicts its lesion",
    "save it without transparency: the lesion in white, the rest in black",
)
FAINT = Rule(
    "mask whose levels are all in the lower half",
    "a threshold at half would empty it: save the lesion as 255 and the rest as 0 (0 and 1 are read, too); for class "
    "indices give `num_classes`",
)
COARSE = Rule("mask of 16-bit colors", "save it in grayscale, with 8 or 16 bits")


class MaskLevelsError(ValueError):
    """The file is readable, but its levels are not allowed in a mask.

    Attributes:
        rule: The broken rule; None if gray levels, or levels that are no class, are the only thing wrong.
    """

    def __init__(self, message: str, rule: Rule | None = None) -> None:
        super().__init__(message)
        self.rule = rule


def read_levels(raster: Raster, *, is_class_mask: bool = False) -> tuple[np.ndarray, int]:
    """Read the levels of a mask.

    Args:
        raster: The opened file.
        is_class_mask: Read palettes by index, and refuse colors.
    Returns:
        uint8 or uint16 (h, w), and the level of white: 1, 255, or that of 16-bit levels.
    Raises:
        MaskLevelsError: The mask has several colors, or its transparency hides the lesion.
        ValueError: It has 32-bit pixels.
    """
    image = raster.image
    if image.mode == "P" and is_class_mask:
        return np.array(image), 255
    transparent = _transparency(image)
    if transparent is not None:
        levels, white = _visible_levels(raster, transparent, is_class_mask=is_class_mask)
    else:
        levels, white = _opaque_levels(raster, is_class_mask=is_class_mask)
    if raster.is_coarse and not levels.any():
        raise MaskLevelsError("only the upper 8 bits of its colors are read, and they are 0", COARSE)
    return levels, white


def sixteen_bit(image: Image.Image) -> np.ndarray:
    """Levels of a gray image of a mode of more than 8 bits.

    Raises:
        ValueError: The image has 32-bit pixels.
    """
    levels = np.array(image)
    if image.mode == "F" or levels.min() < 0 or levels.max() > 65535:
        raise ValueError(f"32-bit pixels (mode {image.mode}): save it with 8 or 16 bits")
    return levels.astype(np.uint16)


def present(levels: np.ndarray) -> list[int]:
    """List the levels that occur, in ascending order; a table is many times faster than sorting megapixels."""
    occurs = np.zeros(65536, bool)
    occurs[levels.ravel()] = True
    return np.flatnonzero(occurs).tolist()


def _transparency(image: Image.Image) -> np.ndarray | None:
    """Alpha, uint8 (h, w); None if the image has none, or is opaque everywhere."""
    if image.mode.startswith("I") and isinstance(image.info.get("transparency"), int):
        alpha = np.where(sixteen_bit(image) == image.info["transparency"], 0, 255).astype(np.uint8)
    elif image.has_transparency_data:
        alpha = np.array(image.convert("RGBA").getchannel("A"))
    else:
        return None
    return None if alpha.min() == 255 else alpha


def _visible_levels(raster: Raster, alpha: np.ndarray, *, is_class_mask: bool) -> tuple[np.ndarray, int]:
    """Levels of a mask with transparent pixels, over black."""
    if is_class_mask and ((alpha > 0) & (alpha < 255)).any():
        raise MaskLevelsError("partly transparent pixels, whose class is not clear", TRANSPARENT)
    opaque, white = _without_alpha(raster)
    shown = opaque * np.uint16(alpha > 0) if opaque.ndim == 2 else _over_black(opaque, alpha)
    visible = shown if shown.ndim == 2 else _color_levels(shown, is_gray=is_class_mask)
    is_uniform = bool((opaque == opaque[0, 0]).all() and (alpha == alpha[0, 0]).all())
    if not visible.any() and not is_uniform:
        raise MaskLevelsError("nothing but black is visible, although colors or alpha differ", TRANSPARENT)
    try:
        hidden = opaque if opaque.ndim == 2 else _color_levels(opaque, is_gray=is_class_mask)
    except MaskLevelsError:
        return visible, white
    if hidden.any() and not hidden.all():
        # colors say alone which pixels are lesion, and so does alpha if it is not to be ignored
        if ((hidden > 0) != (visible > 0)).any():
            raise MaskLevelsError("its colors show another lesion than its visible pixels", TRANSPARENT)
        return hidden, white
    return visible, white


def _without_alpha(raster: Raster) -> tuple[np.ndarray, int]:
    """Gray levels (h, w) of a 16-bit image, or colors (h, w, 3), with the level of white."""
    if raster.image.mode.startswith("I"):
        return sixteen_bit(raster.image), raster.white
    return np.array(raster.image.convert("RGBA"))[..., :3], 255


def _over_black(colors: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    return np.rint(colors * (alpha[..., None] / np.float32(255))).astype(np.uint8)


def _opaque_levels(raster: Raster, *, is_class_mask: bool) -> tuple[np.ndarray, int]:
    image = raster.image
    if image.mode == "1":
        return np.array(image, np.uint8), 1
    if image.mode == "L":
        return np.array(image), raster.white
    if image.mode == "F" or image.mode.startswith("I"):
        return sixteen_bit(image), raster.white
    if image.mode == "P":
        return _palette_levels(image), 255
    return _color_levels(np.array(image.convert("RGB")), is_gray=is_class_mask), 255


def _palette_levels(image: Image.Image) -> np.ndarray:
    """Levels of a binary mask with a palette, by the rule of this module."""
    indices = np.array(image)
    palette = np.zeros((256, 3), np.uint8)
    entries = np.array(image.getpalette("RGB") or [], np.uint8).reshape(-1, 3)[:256]
    palette[: len(entries)] = entries
    used = present(indices)
    foreground = [index for index in used if index > 0]
    if not palette[0].any() and len(foreground) == 1:
        color = palette[foreground[0]]
        # grays between keep their level, as in a map of probabilities
        if not color.any() or (color != color[0]).any():
            return (indices > 0).astype(np.uint8) * np.uint8(255)
    if len(used) > 1 and (palette[used] == palette[used[0]]).all():
        raise MaskLevelsError(f"{len(used)} palette entries of one color", COLORS)
    # with another color at index 0, index and color disagree on the background
    return _color_levels(palette[indices], is_gray=used[0] == 0 and bool(palette[0].any()))


def _color_levels(colors: np.ndarray, *, is_gray: bool = False) -> np.ndarray:
    """Gray levels of colors (h, w, 3); black and one other color are 0 and 255 unless only grays are allowed."""
    red, green, blue = np.moveaxis(colors, 2, 0)
    if (red == green).all() and (red == blue).all():
        return red
    packed = red.astype(np.uint32) << 16 | green.astype(np.uint32) << 8 | blue
    lit = packed > 0
    if is_gray or lit.all() or (packed[lit] != packed[lit][0]).any():
        raise MaskLevelsError("colors", COLORS)
    return lit.astype(np.uint8) * np.uint8(255)
