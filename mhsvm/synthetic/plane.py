"""The plane of a synthetic image: coordinates, smooth noise, soft shapes and strokes.

The unit of length is sqrt(h * w), the origin is the center, x points right and y down. Random numbers are sampled on
grids that do not depend on the number of pixels, so (seed, index) gives the same scene at every size.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

_SUPERSAMPLING = 2


class Plane:
    """Coordinates of an image with h x w pixels.

    Args:
        size: Height and width in pixels.
    """

    def __init__(self, size: tuple[int, int]):
        self.size = size
        self.unit = float(np.sqrt(size[0] * size[1]))
        rows, columns = (np.arange(length, dtype=np.float32) + 0.5 - length / 2 for length in size)
        self.y, self.x = np.meshgrid(rows / self.unit, columns / self.unit, indexing="ij")
        # Half the height and half the width.
        self.reach = size[0] / self.unit / 2, size[1] / self.unit / 2

    def noise(self, rng: np.random.Generator, cells: float) -> np.ndarray:
        """Sample smooth noise with about `cells` bumps per unit length: (h, w), mean 0, deviation about 1."""
        grid = [max(2, round(cells * 2 * half)) + 2 for half in self.reach]
        coarse = rng.standard_normal(grid).astype(np.float32)
        height, width = self.size
        # One cell is removed on each side, where the interpolation becomes flat.
        box = (1, 1, grid[1] - 1, grid[0] - 1)
        smooth = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC, box=box)
        return np.asarray(smooth) * 1.3

    def points(self, rng: np.random.Generator, num: int) -> np.ndarray:
        """Sample uniform points in the image, (num, 2) with x and y."""
        return rng.uniform(-1, 1, (num, 2)) * self.reach[::-1]

    def mesh(self, rng: np.random.Generator, pitch: float) -> np.ndarray:
        """Sample points of a jittered hexagonal mesh, (num, 2) with x and y."""
        rows = np.arange(-self.reach[0], self.reach[0] + pitch, pitch * 0.87)
        columns = np.arange(-self.reach[1], self.reach[1] + pitch, pitch)
        x, y = np.meshgrid(columns, rows)
        x[::2] += pitch / 2
        points = np.stack([x.ravel(), y.ravel()], axis=1)
        return points + rng.normal(0, 0.18 * pitch, points.shape)

    def dots(self, points: np.ndarray, radius: float) -> np.ndarray:
        """Render soft dots of height 1 at points, (h, w)."""
        image = np.zeros(self.size, np.float32)
        column, row = self._pixels(points).T.astype(int)
        inside = (row >= 0) & (row < self.size[0]) & (column >= 0) & (column < self.size[1])
        image[row[inside], column[inside]] = 1
        sigma = max(0.5, radius * self.unit)
        return np.minimum(ndimage.gaussian_filter(image, sigma, truncate=3) * (2 * np.pi * sigma**2), 1)

    def strokes(self, paths: Sequence[np.ndarray], width: float) -> np.ndarray:
        """Render antialiased lines through points: coverage (h, w) in [0, 1]."""
        height, breadth = (length * _SUPERSAMPLING for length in self.size)
        layer = Image.new("L", (breadth, height))
        draw = ImageDraw.Draw(layer)
        pixels = max(1, round(width * self.unit * _SUPERSAMPLING))
        for path in paths:
            draw.line([tuple(point) for point in self._pixels(path) * _SUPERSAMPLING], fill=255, width=pixels)
        layer = layer.reduce(_SUPERSAMPLING)
        return np.asarray(layer, np.float32) / 255

    def _pixels(self, points: np.ndarray) -> np.ndarray:
        return (np.asarray(points) + self.reach[::-1]) * self.unit


def blend(image: np.ndarray, color: np.ndarray | Sequence[float], alpha: np.ndarray) -> np.ndarray:
    """Blend a color, (3,) or (h, w, 3), into an image (h, w, 3) with opacity (h, w)."""
    return image + (np.asarray(color, np.float32) - image) * alpha[..., None]


def step(values: np.ndarray, width: float) -> np.ndarray:
    """Soft step from 0 to 1 at 0, with a width of about `width`."""
    return 0.5 + 0.5 * np.tanh(values * (2 / width))
