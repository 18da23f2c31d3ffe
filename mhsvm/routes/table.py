"""Route tables: the routes of a pattern on a map, with their inverses; tables are cached."""

import functools

import numpy as np
import torch
from torch import Tensor

from mhsvm.routes.patterns import PATTERNS


def route_table(pattern: str, h: int, w: int) -> tuple[Tensor, Tensor]:
    """Compute the two base routes of a pattern on an h x w map.

    Args:
        pattern: A name from `list_patterns()`.
        h, w: Size of the map in cells, at least 1.
    Returns:
        (order, inverse), each int64 (2, h*w) on the CPU: position on the route -> cell (row * w + col), and
        cell -> position. The tensors are new and may be changed.
    Raises:
        ValueError: The pattern is unknown (known ones are listed), or the map has no cell.
    """
    return _to_tensors(_base_routes(pattern, h, w))


def scan_routes(pattern: str, h: int, w: int) -> tuple[Tensor, Tensor]:
    """Compute the four routes of a scan head: base 0, its reverse, base 1, its reverse.

    Arguments, results and errors are those of `route_table`, with int64 (4, h*w).
    """
    return _to_tensors(_four_routes(pattern, h, w))


def published_tables(h: int, w: int, *, depth: int) -> list[dict[str, Tensor]]:
    """Compute all route tables of an image, in the format of the published route files.

    Args:
        h, w: Size of the image in pixels.
        depth: Number of stages; the map of stage i is h/4/2^i x w/4/2^i.
    Returns:
        A dictionary for each stage with the single key `layer_{i}.cxsz_tpinds`, an int64 tensor (8, 2, l). Its rows
        are C0 C1 X0 X1 S0 S1 Z0 Z1; `[:, 0]` is the route and `[:, 1]` its inverse.
    Raises:
        ValueError: The depth is below 1, or h or w is not divisible by 2^(depth+1); the nearest valid sizes are named.
    Source: the file format of Ji 2024, arXiv 2406.05992.
    """
    if depth < 1:
        raise ValueError(f"depth must be at least 1 stage, got {depth}")
    for name, size in (("h", h), ("w", w)):
        _check_divisible(name, size, 2 ** (depth + 1))
    stages = []
    for i in range(depth):
        scale = 4 * 2**i
        tables = [torch.stack(route_table(pattern, h // scale, w // scale), dim=1) for pattern in "CXSZ"]
        stages.append({f"layer_{i}.cxsz_tpinds": torch.cat(tables)})
    return stages


def _check_divisible(name: str, size: int, divisor: int) -> None:
    if size > 0 and size % divisor == 0:
        return
    above = divisor * max(1, -(-size // divisor))
    nearest = f"{above - divisor} or {above}" if above > divisor else f"{above}"
    raise ValueError(f"{name} must be divisible by {divisor} at this depth, got {size}: use {nearest}")


# Arrays are cached instead of tensors, because a tensor keeps the mode in which it was created (inference, fake, meta).
@functools.lru_cache(maxsize=64)
def _base_routes(pattern: str, h: int, w: int) -> tuple[np.ndarray, np.ndarray]:
    if h < 1 or w < 1:
        raise ValueError(f"a map for scan routes must have at least 1 x 1 cells, got {h} x {w}")
    bases = PATTERNS[pattern](h, w)
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
