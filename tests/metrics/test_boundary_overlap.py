"""Normalized surface Dice and boundary IoU, against hand counts, MONAI, and the authors' erosions."""

import numpy as np
import pytest
import torch
from monai.metrics import compute_surface_dice
from scipy.ndimage import binary_erosion

from mhsvm.metrics import measure_masks
from mhsvm.metrics.boundary import boundary_pixels
from mhsvm.metrics.boundary_iou import boundary_iou
from mhsvm.metrics.surface_dice import surface_dice


def square(top, left, side, size=24):
    mask = np.zeros((size, size), bool)
    mask[top : top + side, left : left + side] = True
    return mask


def blobs(num, size, seed=3):
    """Smooth random maps, cut at half; some touch the frame."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.nn.functional.interpolate(torch.rand(num, 1, 5, 5, generator=generator), size=size, mode="bicubic")
    return (noise[:, 0] > 0.55).numpy()


def brute_surface_dice(pred, target, tolerance):
    ends = [np.argwhere(mask ^ binary_erosion(mask)) for mask in (pred, target)]
    apart = np.sqrt(((ends[0][:, None] - ends[1][None]) ** 2).sum(-1))
    within = (apart.min(axis=1) <= tolerance).sum() + (apart.min(axis=0) <= tolerance).sum()
    return within / sum(map(len, ends))


def authors_boundary_iou(pred, target, fraction):
    h, w = pred.shape
    dilation = max(1, int(round(fraction * np.sqrt(h**2 + w**2))))
    bands = []
    for mask in (pred, target):
        eroded = binary_erosion(np.pad(mask, 1), np.ones((3, 3)), iterations=dilation)[1:-1, 1:-1]
        bands.append(mask & ~eroded)
    union = (bands[0] | bands[1]).sum()
    return (bands[0] & bands[1]).sum() / union


def test_a_square_in_a_square():
    # boundary of 3 x 3: 8 pixels, all 1 away; of 5 x 5 around it: 16 pixels, 12 of them 1 away, the corners sqrt(2)
    inner, outer = square(6, 6, 3), square(5, 5, 5)
    assert surface_dice(inner, outer, tolerance=0.9) == (0.0, 0.0)
    assert surface_dice(inner, outer, tolerance=1.0)[0] == 20 / 24
    assert surface_dice(inner, outer, tolerance=1.5, fraction=1.2 / np.hypot(24, 24)) == (1.0, 20 / 24)
    # the band of one pixel: 8 and 16 pixels, none in common; that of two: 9 and 24
    assert boundary_iou(inner, outer, fraction=1 / np.hypot(24, 24)) == 0.0
    assert boundary_iou(inner, outer, fraction=2 / np.hypot(24, 24)) == 8 / 25


def test_the_band_is_one_pixel_wide_at_least_and_the_frame_ends_a_mask():
    full = np.ones((8, 8), bool)
    assert boundary_iou(full, square(1, 1, 6, size=8), fraction=0.0) == 0.0
    assert boundary_iou(full, full, fraction=0.0) == 1.0
    # a frame of one pixel lacks: 28 pixels of the band of 48 in two pixels' width, and the ring of 20 is in both
    assert boundary_iou(full, square(1, 1, 6, size=8), fraction=2 / np.hypot(8, 8)) == 20 / 60
    assert boundary_pixels(full).sum() == 28


@pytest.mark.parametrize("measure", [surface_dice, boundary_iou])
def test_empty_masks_count_as_overlaps(measure):
    some, none = square(2, 2, 4), np.zeros((24, 24), bool)
    assert np.atleast_1d(measure(none, none)).tolist() == [1.0] * np.size(measure(none, none))
    for masks in ((some, none), (none, some)):
        assert not np.any(measure(*masks))


# MONAI's own doing, of versions before 1.7
@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")
@pytest.mark.parametrize("tolerance", [0.0, 1.0, 1.5, 2.0, 3.0, 7.0])
def test_surface_dice_against_monai_and_brute_force(tolerance):
    pred, target = blobs(8, 40), blobs(8, 40, seed=4)
    own = [surface_dice(*masks, tolerance=tolerance)[0] for masks in zip(pred, target, strict=True)]
    brute = [brute_surface_dice(*masks, tolerance) for masks in zip(pred, target, strict=True)]
    assert own == pytest.approx(brute, abs=1e-12)
    maps = (torch.from_numpy(masks)[:, None] for masks in (pred, target))
    monai = compute_surface_dice(*maps, class_thresholds=[tolerance], include_background=True)
    assert own == pytest.approx(monai[:, 0].tolist(), abs=1e-6)


@pytest.mark.parametrize("fraction", [0.005, 0.02, 0.1])
def test_boundary_iou_against_the_authors_erosions(fraction):
    maps = np.concatenate([blobs(5, 40), np.random.default_rng(0).random((3, 40, 40)) > 0.2])
    for pred, target in zip(maps[:-1], maps[1:], strict=True):
        assert boundary_iou(pred, target, fraction=fraction) == authors_boundary_iou(pred, target, fraction)


def test_each_class_alone():
    classes = torch.from_numpy(square(2, 2, 6) + 2 * square(12, 12, 6).astype(np.uint8))
    moved = torch.from_numpy(square(2, 3, 6) + 2 * square(12, 12, 6).astype(np.uint8))
    arguments = {"nsd": {"tolerance": 0.0}}
    values = measure_masks(classes[None], moved[None], metrics=["nsd"], num_classes=4, arguments=arguments)
    # of 2 x 20 boundary pixels of class 1, those of two rows agree but for one at an end; class 3 is in neither
    assert values[0, :, 0].tolist() == [20 / 40, 1.0, 1.0]
