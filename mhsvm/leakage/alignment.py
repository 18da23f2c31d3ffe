"""Aligning pairs of small grey pictures by affine maps, many at once.

A map (2, 3) takes a place in the first picture to the one in the second, (x, y) from -1 to 1 over the frame, so
that it holds at every resolution. Shapes: p pairs, n pictures, s side.
"""

import math

import numpy as np
import torch
from scipy import ndimage
from torch.nn import functional

# Where the search starts: other framings of one lesion are seldom more than this apart.
_SCALES = (0.8, 0.9, 1.0, 1.1, 1.25)
_ANGLES = (-12.0, 0.0, 12.0)
_MAX_SHIFT = 0.25
_CHUNK = 512


def detail(greys: np.ndarray, *, finest: float, coarsest: float) -> torch.Tensor:
    """Structure between two sizes, with the contrast evened out: grey (n, s, s) in 0..255 -> (n, s, s).

    Colour, exposure and shading go; borders, hair and pigment stay.

    Args:
        finest: Deviation of the Gaussian that takes away finer structure, pixels.
        coarsest: Deviation of the Gaussian that keeps coarser structure, which is then taken away, pixels.
    """
    structure = _blur(greys, finest) - _blur(greys, coarsest)
    contrast = np.sqrt(_blur(structure**2, 1.5 * coarsest))
    # Two grey levels: flat skin stays flat.
    return torch.from_numpy(structure / (contrast + 2)).float()


def search(first: torch.Tensor, second: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Best of a grid of scales and angles, each with its best shift.

    Args:
        first, second: `detail` of the two pictures of each pair, (p, s, s).
    Returns:
        Maps (p, 2, 3) and correlations (p).
    """
    parts = zip(first.split(_CHUNK), second.split(_CHUNK), strict=True)
    maps, scores = zip(*(_search_chunk(a, b) for a, b in parts), strict=True)
    return torch.cat(maps), torch.cat(scores)


def refine(
    first: torch.Tensor, second: torch.Tensor, maps: torch.Tensor, *, steps: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Improve maps by Gauss-Newton steps on the correlation.

    Source: Baker & Matthews 2004, doi 10.1023/B:VISI.0000011205.11775.fd, the inverse compositional algorithm.

    Args:
        first, second: `detail` of the two pictures of each pair, (p, s, s).
        maps: Where to start, (p, 2, 3).
    Returns:
        Best maps met (p, 2, 3), and their correlations (p) over the common part of the frame.
    """
    # The Jacobian holds six numbers a pixel.
    chunk = max(1, _CHUNK * 1024 // first[0].numel())
    parts = zip(first.split(chunk), second.split(chunk), maps.split(chunk), strict=True)
    found, scores = zip(*(_refine_chunk(a, b, start, steps) for a, b, start in parts), strict=True)
    return torch.cat(found), torch.cat(scores)


def _blur(images: np.ndarray, sigma: float) -> np.ndarray:
    return ndimage.gaussian_filter(images.astype(np.float32), (0, sigma, sigma), truncate=3)


def _window(side: int) -> torch.Tensor:
    """Weights that fade to the frame, (s, s)."""
    slope = torch.hann_window(side + 2, periodic=False)[1:-1]
    return torch.outer(slope, slope).sqrt()


def _warp(images: torch.Tensor, maps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures sampled through maps, and 1 where they are inside their frame: (p, s, s) each."""
    grid = functional.affine_grid(maps, [len(images), 1, *images.shape[1:]], align_corners=False)
    sampled = functional.grid_sample(images[:, None], grid, padding_mode="border", align_corners=False)
    return sampled[:, 0], (grid.abs() <= 1).all(dim=-1).float()


def _unit(images: torch.Tensor) -> torch.Tensor:
    centred = images - images.mean(dim=(1, 2), keepdim=True)
    return centred / centred.norm(dim=(1, 2), keepdim=True).clamp(min=1e-6)


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
            turn = torch.tensor([[cos, -sin], [sin, cos]])
            turned, _ = _warp(second, functional.pad(turn, (0, 1)).expand(num, 2, 3))
            product = spectrum * torch.fft.rfft2(_unit(turned * window)).conj()
            likeness = torch.fft.irfft2(product, s=(side, side)).roll((reach, reach), dims=(1, 2))
            score, place = likeness[:, : 2 * reach + 1, : 2 * reach + 1].flatten(1).max(dim=1)
            row, column = place // (2 * reach + 1) - reach, place % (2 * reach + 1) - reach
            shift = torch.stack([column, row], dim=1) * (2 / side)
            maps = torch.cat([turn.expand(num, 2, 2), -(shift @ turn.T)[..., None]], dim=2)
            better = score > best
            best[better], best_maps[better] = score[better], maps[better]
    return best_maps, best


def _refine_chunk(
    first: torch.Tensor, second: torch.Tensor, maps: torch.Tensor, steps: int
) -> tuple[torch.Tensor, torch.Tensor]:
    num, side, _ = first.shape
    window = _window(side)
    slope_y, slope_x = (slope * (side / 2) for slope in torch.gradient(first, dim=(1, 2)))
    axis = (torch.arange(side) * 2 + 1) / side - 1
    x, y = axis[None, :], axis[:, None]
    jacobian = torch.stack([slope_x * x, slope_x * y, slope_x, slope_y * x, slope_y * y, slope_y], dim=1)
    jacobian = jacobian.flatten(2)  # (p, 6, s * s)
    hessian = (jacobian * window.flatten()) @ jacobian.transpose(1, 2)
    # Levenberg's damping keeps flat pictures solvable.
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
    """maps after the inverse of (identity + move)."""
    last = torch.tensor([0.0, 0.0, 1.0]).expand(len(maps), 1, 3)
    inverse = torch.linalg.inv(torch.cat([move, 0 * last], dim=1) + torch.eye(3))
    return (torch.cat([maps, last], dim=1) @ inverse)[:, :2]


def _correlate(first: torch.Tensor, second: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Weighted correlation of each pair, and the factor that fits the second picture to the first: (p) each."""
    total = weight.sum(dim=(1, 2)).clamp(min=1e-6)

    def mean(values: torch.Tensor) -> torch.Tensor:
        return (weight * values).sum(dim=(1, 2)) / total

    mean_first, mean_second = mean(first), mean(second)
    covariance = mean(first * second) - mean_first * mean_second
    variance_first = (mean(first**2) - mean_first**2).clamp(min=1e-6)
    variance_second = (mean(second**2) - mean_second**2).clamp(min=1e-6)
    gain = (variance_first / variance_second).sqrt()
    return covariance / (variance_first * variance_second).sqrt(), gain
