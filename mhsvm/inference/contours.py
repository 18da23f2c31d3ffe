"""Contours of predicted regions as polygons, with subpixel accuracy.

Coordinates are (x, y) in pixels of the image, x to the right and y down; (0, 0) is the upper left corner of the image
and (0.5, 0.5) the center of its first pixel.
"""

from dataclasses import dataclass

import contourpy
import numpy as np

# Least distance of a pixel's value from the level of the contour: it keeps each pixel's center on its mask's side.
_LEAST_MARGIN = 1e-4


@dataclass(frozen=True)
class Polygon:
    """A region and its holes.

    Attributes:
        outer: float64 (n, 2), x and y of its outer contour; the last point is the first.
        holes: Contours of its holes, each like `outer`.
    """

    outer: np.ndarray
    holes: tuple[np.ndarray, ...] = ()

    @property
    def area(self) -> float:
        """Area without the holes, in pixels."""
        return abs(_signed_area(self.outer)) - sum(abs(_signed_area(hole)) for hole in self.holes)


def find_polygons(mask: np.ndarray, probability: np.ndarray, *, threshold: float, label: int = 1) -> list[Polygon]:
    """Find the contours of a class, interpolated between pixel centers at the decision boundary of its probability.

    A pixel's center is inside a polygon if and only if the mask has the class there. A cleaned mask overrides the
    probability.

    Args:
        mask: uint8 (h, w), 1 is lesion, or class indices.
        probability: (h, w) of lesion, or (k, h, w) of each class.
        threshold: Probability at and above which a pixel is lesion; ignored for several classes.
        label: Index of the class.
    Returns:
        Polygons, the largest first.
    """
    inside = mask == label
    if not inside.any():
        return []
    rows, columns = (np.flatnonzero(inside.any(axis=axis)) for axis in (1, 0))
    # with one more pixel on each side: the contour runs between inner and outer pixels
    top, left = max(rows[0] - 1, 0), max(columns[0] - 1, 0)
    window = np.s_[top : rows[-1] + 2, left : columns[-1] + 2]
    inside = inside[window]
    whole = (..., *window)
    margin = _margin(probability[whole], threshold, label)
    margin = np.where(inside, np.maximum(margin, _LEAST_MARGIN), np.minimum(margin, -_LEAST_MARGIN))
    # mirrored with the opposite sign outside the image: contours of regions at its border run along the border
    margin = np.pad(margin, 1, mode="edge")
    for border in (margin[0], margin[-1], margin[:, 0], margin[:, -1]):
        np.negative(np.abs(border), out=border)
    generator = contourpy.contour_generator(z=margin, fill_type=contourpy.FillType.OuterOffset)
    polygons = []
    for points, offsets in zip(*generator.filled(0, margin.max() + 1), strict=True):
        # from indices of the padded window to coordinates of the image
        lines = np.split(points + (left - 0.5, top - 0.5), offsets[1:-1])
        polygons.append(Polygon(lines[0], tuple(lines[1:])))
    return sorted(polygons, key=lambda polygon: -polygon.area)


def _margin(probability: np.ndarray, threshold: float, label: int) -> np.ndarray:
    """Margin of the class over the threshold or over the best other class, (h, w)."""
    if probability.ndim == 2:
        return probability.astype(np.float64) - threshold
    others = np.delete(probability, label, axis=0).max(axis=0)
    return probability[label].astype(np.float64) - others


def _signed_area(line: np.ndarray) -> float:
    x, y = (line - line[0]).T
    return float(x[:-1] @ y[1:] - x[1:] @ y[:-1]) / 2
