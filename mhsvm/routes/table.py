"""Route tables: a pattern's routes on a map of given size with their inverses, made once and kept."""

import functools

import numpy as np
import torch
from torch import Tensor

from mhsvm.routes.patterns import get_pattern


def route_table(pattern: str, h: int, w: int) -> tuple[Tensor, Tensor]:
    """The two base routes of a pattern on an h x w map.

    Args:
        pattern: A name from `list_patterns()`.
        h, w: Size of the map in cells, at least 1.
    Returns:
        (order, inverse), each int64 (2, h*w) on the CPU: position on the route -> cell (row * w + col), and
        cell -> position. The caller's own tensors, to keep or to change.
    Raises:
        ValueError: The pattern is unknown (known ones are listed), or the map has no cell.
    """
    return _to_tensors(_base_routes(pattern, h, w))


def scan_routes(pattern: str, h: int, w: int) -> tuple[Tensor, Tensor]:
    """The four routes that a scan head walks: base 0, its reverse, base 1, its reverse.

    Arguments, errors and returns are those of `route_table`, each int64 (4, h*w).
    """
    return _to_tensors(_four_routes(pattern, h, w))


# Arrays are cached, not tensors: a tensor keeps for good the mode it was made in (inference, fake, meta).
@functools.lru_cache(maxsize=64)
def _base_routes(pattern: str, h: int, w: int) -> tuple[np.ndarray, np.ndarray]:
    if h < 1 or w < 1:
        raise ValueError(f"a map for scan routes must have at least 1 x 1 cells, got {h} x {w}")
    bases = get_pattern(pattern)(h, w)
    cells = np.arange(h * w)
    if len(bases) != 2 or not all(np.array_equal(np.sort(base), cells) for base in bases):
        raise ValueError(
            f"scan pattern {pattern!r} must return two permutations of the {h * w} cells of a {h} x {w} map"
        )
    order = np.stack(bases).astype(np.int64)
    inverse = np.empty_like(order)
    np.put_along_axis(inverse, order, cells[None], axis=1)
    return order, inverse


@functools.lru_cache(maxsize=64)
def _four_routes(pattern: str, h: int, w: int) -> tuple[np.ndarray, np.ndarray]:
    order, inverse = _base_routes(pattern, h, w)
    return (
        np.stack([order, order[:, ::-1]], axis=1).reshape(4, -1),
        np.stack([inverse, h * w - 1 - inverse], axis=1).reshape(4, -1),
    )


def _to_tensors(arrays: tuple[np.ndarray, np.ndarray]) -> tuple[Tensor, Tensor]:
    order, inverse = arrays
    return torch.tensor(order, device="cpu"), torch.tensor(inverse, device="cpu")
