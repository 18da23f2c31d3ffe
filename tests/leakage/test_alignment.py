import math

import numpy as np
import pytest
import torch
from PIL import Image

from mhsvm.leakage import alignment
from mhsvm.synthetic import generate_sample


@pytest.fixture(scope="module")
def grays():
    images = [Image.fromarray(generate_sample(seed=2, index=index, size=(128, 128))[0]) for index in range(6)]
    return np.stack([np.asarray(image.convert("L"), np.float32) for image in images])


def affine(scale, degrees, x, y):
    cos, sin = scale * math.cos(math.radians(degrees)), scale * math.sin(math.radians(degrees))
    return torch.tensor([[cos, -sin, x], [sin, cos, y]])


def warped(grays, maps):
    """The images of which `maps` makes `grays`: grays(x) = result(map x), with the inverse of each map."""
    full = torch.cat([maps, torch.tensor([0.0, 0.0, 1.0]).expand(len(maps), 1, 3)], dim=1)
    grid = torch.nn.functional.affine_grid(
        torch.linalg.inv(full)[:, :2], [len(grays), 1, 128, 128], align_corners=False
    )
    sampled = torch.nn.functional.grid_sample(
        torch.from_numpy(grays)[:, None], grid, padding_mode="border", align_corners=False
    )
    return sampled[:, 0].numpy()


def halved(grays):
    return grays.reshape(len(grays), grays.shape[1] // 2, 2, grays.shape[2] // 2, 2).mean((2, 4))


@pytest.mark.parametrize("true", [affine(1, 0, 0.1, -0.06), affine(0.9, 6, 0.0, 0.05), affine(1.15, -9, -0.08, 0.0)])
def test_search_and_refine_recover_a_known_map(grays, true):
    maps = true.expand(len(grays), 2, 3)
    pictures, others = halved(grays), halved(warped(grays, maps))
    coarse = [alignment.detail(halved(side), finest=0.5, coarsest=2.5) for side in (pictures, others)]
    found, scores = alignment.search(*coarse)
    assert scores.min() > 0.75
    middle = [alignment.detail(side, finest=0.7, coarsest=5) for side in (pictures, others)]
    refined, scores = alignment.refine(*middle, found, steps=8)
    assert scores.min() > 0.95
    # Less than a pixel of 64 in the middle of the frame, and two at half its width.
    assert (refined - maps)[..., 2].abs().max() < 2 / 64
    assert (refined - maps)[..., :2].abs().max() < 0.06


def test_refining_never_makes_a_map_worse(grays):
    detail = alignment.detail(halved(grays), finest=0.7, coarsest=5)
    start = affine(1.2, 12, 0.2, 0.1).expand(len(grays), 2, 3)
    _, before = alignment.refine(detail, detail.flip(0), start, steps=0)
    _, after = alignment.refine(detail, detail.flip(0), start, steps=5)
    assert (after >= before).all()


def test_detail_forgets_brightness_and_contrast(grays):
    plain = alignment.detail(grays, finest=0.7, coarsest=5)
    changed = alignment.detail(grays * 0.7 + 40, finest=0.7, coarsest=5)
    for one, other in zip(plain, changed, strict=True):
        assert np.corrcoef(one.flatten(), other.flatten())[0, 1] > 0.99
