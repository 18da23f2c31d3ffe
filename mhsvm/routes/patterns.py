"""Scan patterns: each one registered function from a map's size to its two base routes.

A route is a permutation of the cells of an h x w map: position in the sequence -> row * w + col. A new
pattern is one function here, or anywhere, under `register_pattern`. Source: Ji 2024, arXiv 2406.05992.
"""

from collections.abc import Callable

import numpy as np

from mhsvm.registry import Registry

Pattern = Callable[[int, int], tuple[np.ndarray, np.ndarray]]

PATTERNS: Registry[Pattern] = Registry("scan pattern")


def register_pattern(name: str) -> Callable[[Pattern], Pattern]:
    """Register the decorated function `(h, w) -> (base0, base1)`, each int64 (h*w), as a scan pattern.

    Raises:
        ValueError: The name is taken.
    """

    return PATTERNS.register(name)


def list_patterns() -> tuple[str, ...]:
    """Names of all registered scan patterns."""
    return PATTERNS.names()


@register_pattern("C")
def continuous(h: int, w: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows to and fro from the top; columns to and fro from the left."""
    grid = _grid(h, w)
    return _to_and_fro(grid), _to_and_fro(grid.T)


@register_pattern("X")
def diagonal(h: int, w: int) -> tuple[np.ndarray, np.ndarray]:
    """Anti-diagonals from the top-left corner, up on even and down on odd; the same mirrored left-right."""
    rows, cols = np.indices((h, w))
    diagonal = rows + cols
    # Of the triangle before a diagonal, what lies below and what lies right of the map is not there.
    cells_before = _triangle(diagonal) - _triangle(diagonal - h) - _triangle(diagonal - w)
    first_row, last_row = np.maximum(diagonal - w + 1, 0), np.minimum(diagonal, h - 1)
    along = np.where(diagonal % 2 == 0, last_row - rows, rows - first_row)
    base = _follow(cells_before + along)
    return base, np.fliplr(_grid(h, w)).ravel()[base]


@register_pattern("S")
def spiral(h: int, w: int) -> tuple[np.ndarray, np.ndarray]:
    """Clockwise inwards from the top-left corner, first to the right; the same mirrored top-bottom."""
    rows, cols = np.indices((h, w))
    ring = np.minimum(np.minimum(rows, h - 1 - rows), np.minimum(cols, w - 1 - cols))
    # The last row and column of a cell's ring, and the cell's place, counted from the ring's corner.
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
    """Row after row; column after column."""
    grid = _grid(h, w)
    return grid.ravel(), grid.T.ravel()


def _grid(h: int, w: int) -> np.ndarray:
    """The flat index of each cell, (h, w)."""
    return np.arange(h * w, dtype=np.int64).reshape(h, w)


def _follow(position: np.ndarray) -> np.ndarray:
    """The route on which each cell, (h, w), has the given position."""
    route = np.empty(position.size, dtype=np.int64)
    route[position.ravel()] = np.arange(position.size)
    return route


def _triangle(side: np.ndarray) -> np.ndarray:
    """1 + 2 + ... + side; 0 where side is negative."""
    side = np.maximum(side, 0)
    return side * (side + 1) // 2


def _to_and_fro(grid: np.ndarray) -> np.ndarray:
    lines = grid.copy()
    lines[1::2] = lines[1::2, ::-1]
    return lines.ravel()
