"""Scan patterns: registered functions from the size of a map to its two base routes.

A route is a permutation of the cells of an h x w map: position in the sequence -> row * w + col. A new pattern is a
function, here or elsewhere, under `register_pattern`. Source: Ji 2024, arXiv 2406.05992.
"""

from collections.abc import Callable

import numpy as np

from mhsvm.registry import Registry

Pattern = Callable[[int, int], tuple[np.ndarray, np.ndarray]]

PATTERNS: Registry[Pattern] = Registry("scan pattern")


def register_pattern(name: str) -> Callable[[Pattern], Pattern]:
    """Register a function (h, w) -> (base0, base1), each int64 (h*w), as a scan pattern.

    Raises:
        ValueError: The name is taken.
    """
    return PATTERNS.register(name)


def list_patterns() -> tuple[str, ...]:
    """Names of all registered scan patterns."""
    return PATTERNS.names()


@register_pattern("C")
def continuous(h: int, w: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows from the top in alternating directions; columns from the left in alternating directions."""
    grid = _grid(h, w)
    return _alternate(grid), _alternate(grid.T)


@register_pattern("X")
def diagonal(h: int, w: int) -> tuple[np.ndarray, np.ndarray]:
    """Anti-diagonals from the top-left corner, up on even and down on odd ones; the same flipped horizontally."""
    rows, cols = np.indices((h, w))
    diagonal = rows + cols
    # The triangle before a diagonal, without its cells below the map and to the right of it.
    cells_before = _triangle(diagonal) - _triangle(diagonal - h) - _triangle(diagonal - w)
    first_row, last_row = np.maximum(diagonal - w + 1, 0), np.minimum(diagonal, h - 1)
    along = np.where(diagonal % 2 == 0, last_row - rows, rows - first_row)
    base = _follow(cells_before + along)
    return base, np.fliplr(_grid(h, w)).ravel()[base]


@register_pattern("S")
def spiral(h: int, w: int) -> tuple[np.ndarray, np.ndarray]:
    """Clockwise inwards from the top-left corner, first to the right; the same flipped vertically."""
    rows, cols = np.indices((h, w))
    ring = np.minimum(np.minimum(rows, h - 1 - rows), np.minimum(cols, w - 1 - cols))
    # Last row and column of a cell's ring, and position of the cell, relative to the corner of the ring.
    bottom, right = h - 1 - 2 * ring, w - 1 - 2 * ring
    row, col = rows - ring, cols - ring
    on_ring = np.select(
        [row == 0, col == right, row == bottom],
        [col, right + row, right + bottom + right - col],
        default=2 * right + 2 * bottom - row,
    )
    cells_outside = h * w - (bottom + 1) * (right + 1)
    base = _follow(cells_outside + on_ring)
    return base, np.flipud(_grid(h, w)).ravel()[base]


@register_pattern("Z")
def raster(h: int, w: int) -> tuple[np.ndarray, np.ndarray]:
    """Row by row; column by column."""
    grid = _grid(h, w)
    return grid.ravel(), grid.T.ravel()


def _grid(h: int, w: int) -> np.ndarray:
    """Flat index of each cell, (h, w)."""
    return np.arange(h * w, dtype=np.int64).reshape(h, w)


def _follow(position: np.ndarray) -> np.ndarray:
    """Route on which each cell has the given position, (h, w)."""
    route = np.empty(position.size, dtype=np.int64)
    route[position.ravel()] = np.arange(position.size)
    return route


def _triangle(side: np.ndarray) -> np.ndarray:
    """1 + 2 + ... + side; 0 where side is negative."""
    side = np.maximum(side, 0)
    return side * (side + 1) // 2


def _alternate(grid: np.ndarray) -> np.ndarray:
    lines = grid.copy()
    lines[1::2] = lines[1::2, ::-1]
    return lines.ravel()
