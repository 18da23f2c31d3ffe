"""Outlines of predicted regions as polygons, finer than a pixel.

Coordinates are (x, y) in pixels of the image itself, x to the right and y down; (0, 0) is the upper left corner of the
frame and (0.5, 0.5) the centre of its first pixel.
"""

from dataclasses import dataclass

import contourpy
import numpy as np

# How far a pixel's value is kept from the level that a contour follows: every centre then lies on its mask's side.
_LEAST_MARGIN = 1e-4


@dataclass(frozen=True)
class Polygon:
    """A region with what is cut out of it.

    Attributes:
        outer: float64 (n, 2), x and y of its outline; the last point is the first.
        holes: The same of each hole.
    """

    outer: np.ndarray
    holes: tuple[np.ndarray, ...] = ()

    @property
    def area(self) -> float:
        """In pixels of the image."""
        return abs(_signed_area(self.outer)) - sum(abs(_signed_area(hole)) for hole in self.holes)


def find_polygons(mask: np.ndarray, probability: np.ndarray, *, threshold: float, label: int = 1) -> list[Polygon]:
    """Outlines of a class, where its probability crosses the decision, between the centres of pixels.

    A pixel's centre lies inside a polygon if and only if the mask has that class there: where the mask was cleaned,
    the mask holds.

    Args:
        mask: uint8 (h, w), 1 is lesion, or class indices.
        probability: (h, w) of lesion, or (k, h, w) of each class.
        threshold: Probability from which a pixel is lesion; of no matter for several classes.
        label: The class.
    Returns:
        Polygons, the largest first.
    """
    inside = mask == label
    if not inside.any():
        return []
    rows, columns = (np.flatnonzero(inside.any(axis=axis)) for axis in (1, 0))
    # with the pixels around it: its outline runs between the two
    top, left = max(rows[0] - 1, 0), max(columns[0] - 1, 0)
    window = np.s_[top : rows[-1] + 2, left : columns[-1] + 2]
    inside = inside[window]
    whole = (..., *window)
    lead = _lead(probability[whole], threshold, label)
    lead = np.where(inside, np.maximum(lead, _LEAST_MARGIN), np.minimum(lead, -_LEAST_MARGIN))
    # mirrored with the other sign around the frame, the outline of what touches it runs along it
    lead = np.pad(lead, 1, mode="edge")
    for border in (lead[0], lead[-1], lead[:, 0], lead[:, -1]):
        np.negative(np.abs(border), out=border)
    generator = contourpy.contour_generator(z=lead, fill_type=contourpy.FillType.OuterOffset)
    polygons = []
    for points, offsets in zip(*generator.filled(0, lead.max() + 1), strict=True):
        # from indices of the padded window to places in the frame
        lines = np.split(points + (left - 0.5, top - 0.5), offsets[1:-1])
        polygons.append(Polygon(lines[0], tuple(lines[1:])))
    return sorted(polygons, key=lambda polygon: -polygon.area)


def _lead(probability: np.ndarray, threshold: float, label: int) -> np.ndarray:
    """By how much the class is ahead of the decision, (h, w)."""
    if probability.ndim == 2:
        return probability.astype(np.float64) - threshold
    others = np.delete(probability, label, axis=0).max(axis=0)
    return probability[label].astype(np.float64) - others


def _signed_area(line: np.ndarray) -> float:
    x, y = (line - line[0]).T
    return float(x[:-1] @ y[1:] - x[1:] @ y[:-1]) / 2
