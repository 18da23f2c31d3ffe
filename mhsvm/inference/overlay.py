"""Masks drawn over images: boundaries and tints in colors that color-blind readers can distinguish.

Shape letters: h w image size in pixels.
Colors: Okabe & Ito 2008, "Color Universal Design".
"""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from mhsvm.metrics.counts import IGNORE_INDEX

Color = tuple[int, int, int]

BLACK: Color = (0, 0, 0)
ORANGE: Color = (230, 159, 0)
SKY_BLUE: Color = (86, 180, 233)
BLUISH_GREEN: Color = (0, 158, 115)
YELLOW: Color = (240, 228, 66)
BLUE: Color = (0, 114, 178)
VERMILLION: Color = (213, 94, 0)
REDDISH_PURPLE: Color = (204, 121, 167)
# Outside the palette: pixels that are not counted.
GRAY: Color = (128, 128, 128)

# Blue and yellow contrast with skin, which is reddish to brown, and with each other.
TARGET, PREDICTION = SKY_BLUE, YELLOW
# Neighboring classes also differ in brightness.
_CLASS_COLORS = (SKY_BLUE, VERMILLION, YELLOW, BLUISH_GREEN, ORANGE, BLUE, REDDISH_PURPLE)


def as_fractions(color: Color) -> tuple[float, float, float]:
    """Convert a color for matplotlib, with levels in 0..1."""
    red, green, blue = color
    return red / 255, green / 255, blue / 255


def class_color(label: int) -> Color:
    """Color of a class: seven colors in turn, black for the background, gray for pixels that are not counted."""
    if label == IGNORE_INDEX:
        return GRAY
    return BLACK if label == 0 else _CLASS_COLORS[(label - 1) % len(_CLASS_COLORS)]


def class_palette() -> list[int]:
    """The 256 class colors in the layout of a Pillow palette: red, green, blue, red, …"""
    return [value for label in range(256) for value in class_color(label)]


def inner_boundary(labels: np.ndarray, width: int) -> np.ndarray:
    """Find the boundary of each region of a label map, inside the region; it also follows the border of the map.

    Args:
        labels: uint8 (h, w), 0 is background.
        width: Width of the boundary in pixels.
    Returns:
        bool (h, w).
    """
    # outside the map everything is background, which ends every region
    window = {"size": 2 * width + 1, "mode": "constant", "cval": 0}
    lowest, highest = ndimage.minimum_filter(labels, **window), ndimage.maximum_filter(labels, **window)
    return (labels > 0) & ((lowest != labels) | (highest != labels))


def draw_boundaries(image: np.ndarray, regions: Sequence[tuple[np.ndarray, Color, int]]) -> np.ndarray:
    """Draw boundaries over an image, later ones on top, with a thin dark edge for contrast to light skin.

    Args:
        image: uint8 (h, w, 3).
        regions: Labels, uint8 (h, w), color and width in pixels of each boundary.
    """
    drawn = image.copy()
    edges = [inner_boundary(labels, width) for labels, _, width in regions]
    drawn[ndimage.maximum_filter(np.logical_or.reduce(edges), size=3)] = BLACK
    for edge, (_, color, _) in zip(edges, regions, strict=True):
        drawn[edge] = color
    return drawn


def tint_classes(image: np.ndarray, labels: np.ndarray, width: int) -> np.ndarray:
    """Blend each class's color over its region, and draw its boundary in the pure color.

    Args:
        image: uint8 (h, w, 3).
        labels: uint8 (h, w) class indices; 255 is not counted.
        width: Width of the boundary in pixels.
    """
    colors = np.array(class_palette(), np.uint8).reshape(256, 3)[labels]
    blended = (image * np.float32(0.6) + colors * np.float32(0.4)).astype(np.uint8)
    drawn = np.where((labels > 0)[..., None], blended, image)
    edge = inner_boundary(labels, width)
    drawn[edge] = colors[edge]
    return drawn


def draw_prediction(image: np.ndarray, mask: np.ndarray, *, num_classes: int) -> np.ndarray:
    """Draw a predicted mask over its image, with wider boundaries on larger images.

    Args:
        image: uint8 (h, w, 3).
        mask: uint8 (h, w), 1 is lesion, or class indices.
        num_classes: 1, or k.
    """
    width = max(1, round(max(mask.shape) / 300))
    if num_classes == 1:
        return draw_boundaries(image, [(mask, PREDICTION, width)])
    return tint_classes(image, mask, width)
