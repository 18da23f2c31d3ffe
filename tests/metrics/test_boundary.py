"""Distances between outlines, against hand counts and MONAI's metrics on whole maps."""

import math

import pytest
import torch
from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance

from mhsvm.metrics import boundary_distances


def square(top, left, side, size=24):
    mask = torch.zeros(1, size, size, dtype=torch.uint8)
    mask[0, top : top + side, left : left + side] = 1
    return mask


def blobs(num, size, generator):
    """Smooth random maps, cut at half; some touch the frame."""
    noise = torch.nn.functional.interpolate(torch.rand(num, 1, 5, 5, generator=generator), size=size, mode="bicubic")
    return noise[:, 0] > 0.55


def test_equal_masks_touch_everywhere():
    assert boundary_distances(square(3, 4, 9), square(3, 4, 9)).tolist() == [[[0.0, 0.0]]]


def test_two_points():
    # 3-4-5: each outline is one pixel
    assert boundary_distances(square(2, 2, 1), square(5, 6, 1)).tolist() == [[[5.0, 5.0]]]


def test_a_square_in_a_square():
    # outline of 3 x 3: 8 pixels, of 5 x 5 around it: 16 pixels; each of the 8 is 1 away, of the 16 only the 4 corners
    # are sqrt(2) away, from a corner of the other
    hd95, assd = boundary_distances(square(6, 6, 3), square(5, 5, 5))[0, 0].tolist()
    assert assd == pytest.approx((8 + 12 + 4 * math.sqrt(2)) / 24, abs=1e-6)
    assert hd95 == pytest.approx(math.sqrt(2), abs=1e-6)


def test_the_frame_ends_a_mask():
    full = torch.ones(1, 6, 6, dtype=torch.bool)
    assert boundary_distances(full, full).tolist() == [[[0.0, 0.0]]]
    hd95, assd = boundary_distances(full, square(1, 1, 4, size=6).bool())[0, 0].tolist()
    assert hd95 == pytest.approx(math.sqrt(2), abs=1e-6)
    assert 1 < assd < math.sqrt(2)


@pytest.mark.parametrize("empty", ["prediction", "truth", "both"])
def test_without_an_outline_there_is_no_distance(empty):
    some, none = square(2, 2, 4), torch.zeros(1, 24, 24, dtype=torch.uint8)
    masks = {"prediction": (none, some), "truth": (some, none), "both": (none, none)}
    distances = boundary_distances(*masks[empty])
    assert distances.dtype == torch.float64
    assert distances.isnan().all()


# MONAI's own doing, of versions before 1.7
@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")
def test_against_monai_on_whole_maps():
    generator = torch.Generator().manual_seed(3)
    pred, target = blobs(12, 48, generator), blobs(12, 48, generator)
    own = boundary_distances(pred[:, None], target[:, None])
    maps = (pred[:, None], target[:, None])
    hd95 = compute_hausdorff_distance(*maps, include_background=True, percentile=95)
    assd = compute_average_surface_distance(*maps, include_background=True, symmetric=True)
    torch.testing.assert_close(own[..., 0], hd95.double(), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(own[..., 1], assd.double(), rtol=1e-6, atol=1e-6)


def test_each_class_alone():
    generator = torch.Generator().manual_seed(4)
    pred = blobs(3, 32, generator).int() + blobs(3, 32, generator).int()
    target = blobs(3, 32, generator).int() + blobs(3, 32, generator).int()
    own = boundary_distances(pred, target, num_classes=4)
    assert own.shape == (3, 3, 2)
    for label in (1, 2):
        alone = boundary_distances(pred == label, target == label)
        assert torch.equal(own[:, label - 1 : label], alone)
    assert own[:, 2].isnan().all()


def test_ignored_pixels_are_in_no_mask():
    target = square(2, 2, 4)
    pred = target.clone()
    pred[0, 10:20, 10:20] = 1
    target[0, 10:20, 10:20] = 255
    assert boundary_distances(pred, target, num_classes=2).tolist() == [[[0.0, 0.0]]]


def test_what_is_no_mask_is_refused():
    with pytest.raises(ValueError, match=r"differ in shape: \(1, 24, 24\) and \(1, 6, 6\)"):
        boundary_distances(square(1, 1, 1), square(1, 1, 1, size=6))
    with pytest.raises(ValueError, match=r"the prediction has values outside 0\.\.1, such as 255"):
        boundary_distances(square(1, 1, 3) * 255, square(1, 1, 3))
