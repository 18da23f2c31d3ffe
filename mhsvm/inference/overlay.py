"""Masks drawn over images: outlines and tints in colours that colour-blind readers tell apart.

Shape letters: h w the picture in pixels.
Colours: Okabe & Ito 2008, "Color Universal Design".
"""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from mhsvm.metrics.counts import IGNORE_INDEX

Colour = tuple[int, int, int]

BLACK: Colour = (0, 0, 0)
ORANGE: Colour = (230, 159, 0)
SKY_BLUE: Colour = (86, 180, 233)
BLUISH_GREEN: Colour = (0, 158, 115)
YELLOW: Colour = (240, 228, 66)
BLUE: Colour = (0, 114, 178)
VERMILLION: Colour = (213, 94, 0)
REDDISH_PURPLE: Colour = (204, 121, 167)
# Not of the palette: pixels that are not counted.
GREY: Colour = (128, 128, 128)

# On skin, which is reddish to brown, blue and yellow stand out, from it and from each other.
TRUTH, PREDICTION = SKY_BLUE, YELLOW
# Neighbouring classes differ in brightness, too.
_OF_CLASSES = (SKY_BLUE, VERMILLION, YELLOW, BLUISH_GREEN, ORANGE, BLUE, REDDISH_PURPLE)


def as_fractions(colour: Colour) -> tuple[float, float, float]:
    """Convert a color for matplotlib, with levels in 0..1."""
    red, green, blue = colour
    return red / 255, green / 255, blue / 255


def class_colour(label: int) -> Colour:
    """Colour of a class; after seven they come again. The background is black, what is not counted is grey."""
    if label == IGNORE_INDEX:
        return GREY
    return BLACK if label == 0 else _OF_CLASSES[(label - 1) % len(_OF_CLASSES)]


def class_palette() -> list[int]:
    """The 256 class colours as Pillow's palettes want them: red, green, blue, red, …"""
    return [value for label in range(256) for value in class_colour(label)]


def outline(labels: np.ndarray, width: int) -> np.ndarray:
    """The inner edge of each region of a label map, along the border of the map too.

    Args:
        labels: uint8 (h, w), 0 is background.
        width: Of the edge, in pixels.
    Returns:
        bool (h, w).
    """
    # beyond the map lies background, which ends every region
    window = {"size": 2 * width + 1, "mode": "constant", "cval": 0}
    lowest, highest = ndimage.minimum_filter(labels, **window), ndimage.maximum_filter(labels, **window)
    return (labels > 0) & ((lowest != labels) | (highest != labels))


def draw_outlines(image: np.ndarray, outlines: Sequence[tuple[np.ndarray, Colour, int]]) -> np.ndarray:
    """Draw outlines over an image, later ones on top, all above a thin dark rim that sets them off from light skin.

    Args:
        image: uint8 (h, w, 3).
        outlines: Of each: uint8 (h, w) labels, colour, width in pixels.
    """
    drawn = image.copy()
    edges = [outline(labels, width) for labels, _, width in outlines]
    drawn[ndimage.maximum_filter(np.logical_or.reduce(edges), size=3)] = BLACK
    for edge, (_, colour, _) in zip(edges, outlines, strict=True):
        drawn[edge] = colour
    return drawn


def tint_classes(image: np.ndarray, labels: np.ndarray, width: int) -> np.ndarray:
    """Blend each class's colour over its region and draw it pure along its edge.

    Args:
        image: uint8 (h, w, 3).
        labels: uint8 (h, w) class indices; 255 is not counted.
        width: Of the edge, in pixels.
    """
    colours = np.array(class_palette(), np.uint8).reshape(256, 3)[labels]
    blended = (image * np.float32(0.6) + colours * np.float32(0.4)).astype(np.uint8)
    drawn = np.where((labels > 0)[..., None], blended, image)
    edge = outline(labels, width)
    drawn[edge] = colours[edge]
    return drawn


def draw_prediction(image: np.ndarray, mask: np.ndarray, *, num_classes: int) -> np.ndarray:
    """A predicted mask over its image, with edges as wide as suits the size.

    Args:
        image: uint8 (h, w, 3).
        mask: uint8 (h, w), 1 is lesion, or class indices.
        num_classes: 1, or k.
    """
    width = max(1, round(max(mask.shape) / 300))
    if num_classes == 1:
        return draw_outlines(image, [(mask, PREDICTION, width)])
    return tint_classes(image, mask, width)
