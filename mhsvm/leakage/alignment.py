"""Alignment of many pairs of small grayscale images by affine maps.

A map (2, 3) takes a point of the first image to a point of the second. Coordinates (x, y) go from -1 to 1 over the
frame, so a map is valid at every resolution. Shapes: p pairs, n images, s side.
"""

import math
from collections.abc import Callable, Iterable
from functools import partial

import numpy as np
import torch
from scipy import ndimage
from torch.nn import functional

# Grid of the search: two framings of one lesion seldom differ by more.
_SCALES = (0.8, 0.9, 1.0, 1.1, 1.25)
_ANGLES = (-12.0, 0.0, 12.0)
_MAX_SHIFT = 0.25
_CHUNK = 512


def detail(grays: np.ndarray, *, finest: float, coarsest: float) -> torch.Tensor:
    """Extract structure between two sizes, with equalized contrast: grayscale (n, s, s) in 0..255 -> (n, s, s).

    Exposure and shading are removed; borders, hair and pigment remain.

    Args:
        grays: The images.
        finest: Standard deviation in pixels of the Gaussian that removes finer structure.
        coarsest: Standard deviation in pixels of the Gaussian whose result, the coarser structure, is subtracted.
    """
    structure = _blur(grays, finest) - _blur(grays, coarsest)
    contrast = np.sqrt(_blur(structure**2, 1.5 * coarsest))
    # the constant, two gray levels, keeps flat skin flat
    return torch.from_numpy(structure / (contrast + 2)).float()


def search(
    first: torch.Tensor, second: torch.Tensor, *, on_pairs: Callable[[int], object] = lambda num: None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Find the best map on a grid of scales and angles, each with its best shift.

    Args:
        first, second: `detail` of the two images of each pair, (p, s, s).
        on_pairs: Called with the number of pairs in each part of the work.
    Returns:
        Maps (p, 2, 3) and correlations (p).
    """
    chunks = zip(first.split(_CHUNK), second.split(_CHUNK), strict=True)
    return _join(chunks, _search_chunk, on_pairs)


def refine(
    first: torch.Tensor,
    second: torch.Tensor,
    maps: torch.Tensor,
    *,
    steps: int,
    on_pairs: Callable[[int], object] = lambda num: None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Improve maps by Gauss-Newton steps on the correlation.

    Source: Baker & Matthews 2004, doi 10.1023/B:VISI.0000011205.11775.fd, the inverse compositional algorithm.

    Args:
        first, second: `detail` of the two images of each pair, (p, s, s).
        maps: Initial maps, (p, 2, 3).
        steps: Number of Gauss-Newton steps.
        on_pairs: Called with the number of pairs in each part of the work.
    Returns:
        The best maps found (p, 2, 3), and their correlations (p) over the common part of the frames.
    """
    # the Jacobian has six numbers per pixel
    chunk = max(1, _CHUNK * 1024 // first[0].numel())
    chunks = zip(first.split(chunk), second.split(chunk), maps.split(chunk), strict=True)
    return _join(chunks, partial(_refine_chunk, steps=steps), on_pairs)


def _join(
    chunks: Iterable[tuple[torch.Tensor, ...]],
    align: Callable[..., tuple[torch.Tensor, torch.Tensor]],
    on_pairs: Callable[[int], object],
) -> tuple[torch.Tensor, torch.Tensor]:
    found = []
    for chunk in chunks:
        found.append(align(*chunk))
        on_pairs(len(chunk[0]))
    maps, scores = zip(*found, strict=True)
    return torch.cat(maps), torch.cat(scores)


def _blur(images: np.ndarray, sigma: float) -> np.ndarray:
    return ndimage.gaussian_filter(images.astype(np.float32), (0, sigma, sigma), truncate=3)


def _window(side: int) -> torch.Tensor:
    """Weights that fade towards the frame, (s, s)."""
    fade = torch.hann_window(side + 2, periodic=False)[1:-1]
    return torch.outer(fade, fade).sqrt()


def _warp(images: torch.Tensor, maps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Sample images through maps; the second result is 1 inside the frame and 0 outside. (p, s, s) each."""
    grid = functional.affine_grid(maps, [len(images), 1, *images.shape[1:]], align_corners=False)
    sampled = functional.grid_sample(images[:, None], grid, padding_mode="border", align_corners=False)
    return sampled[:, 0], (grid.abs() <= 1).all(dim=-1).float()


def _unit(images: torch.Tensor) -> torch.Tensor:
    centered = images - images.mean(dim=(1, 2), keepdim=True)
    return centered / centered.norm(dim=(1, 2), keepdim=True).clamp(min=1e-6)


def _search_chunk(first: torch.Tensor, second: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    num, side, _ = first.shape
    reach = round(_MAX_SHIFT * side)
    window = _window(side)
    spectrum = torch.fft.rfft2(_unit(first * window))
    best_maps = torch.zeros(num, 2, 3)
    best = torch.full((num,), -1.0)
    for scale in _SCALES:
        for angle in _ANGLES:
            cos, sin = scale * math.cos(math.radians(angle)), scale * math.sin(math.radians(angle))
            rotation = torch.tensor([[cos, -sin], [sin, cos]])
            rotated, _ = _warp(second, functional.pad(rotation, (0, 1)).expand(num, 2, 3))
            product = spectrum * torch.fft.rfft2(_unit(rotated * window)).conj()
            correlation = torch.fft.irfft2(product, s=(side, side)).roll((reach, reach), dims=(1, 2))
            score, place = correlation[:, : 2 * reach + 1, : 2 * reach + 1].flatten(1).max(dim=1)
            row, column = place // (2 * reach + 1) - reach, place % (2 * reach + 1) - reach
            shift = torch.stack([column, row], dim=1) * (2 / side)
            maps = torch.cat([rotation.expand(num, 2, 2), -(shift @ rotation.T)[..., None]], dim=2)
            better = score > best
            best[better], best_maps[better] = score[better], maps[better]
    return best_maps, best


def _refine_chunk(
    first: torch.Tensor, second: torch.Tensor, maps: torch.Tensor, steps: int
) -> tuple[torch.Tensor, torch.Tensor]:
    num, side, _ = first.shape
    window = _window(side)
    gradient_y, gradient_x = (gradient * (side / 2) for gradient in torch.gradient(first, dim=(1, 2)))
    axis = (torch.arange(side) * 2 + 1) / side - 1
    x, y = axis[None, :], axis[:, None]
    columns = [gradient_x * x, gradient_x * y, gradient_x, gradient_y * x, gradient_y * y, gradient_y]
    jacobian = torch.stack(columns, dim=1).flatten(2)  # (p, 6, s * s)
    hessian = (jacobian * window.flatten()) @ jacobian.transpose(1, 2)
    # Levenberg damping keeps the system of a flat image solvable
    diagonal = torch.diagonal(hessian, dim1=1, dim2=2)
    inverse = torch.linalg.inv(hessian + torch.diag_embed(0.01 * diagonal + 1e-3))
    best_maps, best = maps.clone(), torch.full((num,), -1.0)
    for step in range(steps + 1):
        warped, inside = _warp(second, maps)
        weight = window * inside
        score, gain = _correlate(first, warped, weight)
        better = score > best
        best[better], best_maps[better] = score[better], maps[better]
        if step == steps:
            break
        error = (weight * (gain[:, None, None] * warped - first)).flatten(1)
        move = inverse @ (jacobian @ error[..., None])
        move = move.clamp(-0.15, 0.15).reshape(num, 2, 3)
        maps = _compose_inverse(maps, move)
    return best_maps, best


def _compose_inverse(maps: torch.Tensor, move: torch.Tensor) -> torch.Tensor:
    """Compose maps with the inverse of (identity + move), applied first."""
    last = torch.tensor([0.0, 0.0, 1.0]).expand(len(maps), 1, 3)
    inverse = torch.linalg.inv(torch.cat([move, 0 * last], dim=1) + torch.eye(3))
    return (torch.cat([maps, last], dim=1) @ inverse)[:, :2]


def _correlate(first: torch.Tensor, second: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Weighted correlation of each pair, and the factor that fits the second image to the first: (p) each."""
    total = weight.sum(dim=(1, 2)).clamp(min=1e-6)

    def mean(values: torch.Tensor) -> torch.Tensor:
        return (weight * values).sum(dim=(1, 2)) / total

    mean_first, mean_second = mean(first), mean(second)
    covariance = mean(first * second) - mean_first * mean_second
    variance_first = (mean(first**2) - mean_first**2).clamp(min=1e-6)
    variance_second = (mean(second**2) - mean_second**2).clamp(min=1e-6)
    gain = (variance_first / variance_second).sqrt()
    return covariance / (variance_first * variance_second).sqrt(), gain
