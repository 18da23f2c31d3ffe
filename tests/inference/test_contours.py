"""Polygons of predicted regions: they enclose exactly the mask, and run where the probability crosses the threshold."""

import numpy as np
import pytest
from matplotlib.path import Path
from scipy import ndimage

from mhsvm.inference.contours import Polygon, find_polygons


def inside_of(polygons: list[Polygon], shape: tuple[int, int]) -> np.ndarray:
    """Which pixels have their centre inside, by a rasteriser that knows nothing of how the polygons were found."""
    y, x = np.mgrid[: shape[0], : shape[1]] + 0.5
    centres = np.stack([x.ravel(), y.ravel()], axis=1)
    count = np.zeros(len(centres), int)
    for polygon in polygons:
        count += Path(polygon.outer).contains_points(centres)
        for hole in polygon.holes:
            count -= Path(hole).contains_points(centres)
    return count.reshape(shape)


@pytest.fixture(params=range(4))
def probability(request):
    noise = np.random.default_rng(request.param).normal(size=(40, 57))
    smooth = ndimage.gaussian_filter(noise, 2.5)
    return (1 / (1 + np.exp(-8 * smooth))).astype(np.float32)


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.8])
def test_pixels_inside_the_polygons_are_the_mask(probability, threshold):
    mask = (probability >= threshold).astype(np.uint8)
    polygons = find_polygons(mask, probability, threshold=threshold)
    assert sum(1 + len(polygon.holes) for polygon in polygons) > 2
    np.testing.assert_array_equal(inside_of(polygons, mask.shape), mask)


def test_where_the_mask_was_cleaned_the_mask_holds(probability):
    mask = (probability >= 0.5).astype(np.uint8)
    mask[10:20, 10:20] = 1
    mask[25:30] = 0
    np.testing.assert_array_equal(inside_of(find_polygons(mask, probability, threshold=0.5), mask.shape), mask)


def test_classes_are_outlined_one_by_one():
    maps = ndimage.gaussian_filter(np.random.default_rng(3).normal(size=(3, 40, 50)), (0, 3, 3))
    probability = np.exp(9 * maps) / np.exp(9 * maps).sum(axis=0)
    mask = probability.argmax(axis=0).astype(np.uint8)
    for label in (1, 2):
        polygons = find_polygons(mask, probability, threshold=0.5, label=label)
        np.testing.assert_array_equal(inside_of(polygons, mask.shape), mask == label)


def test_outlines_follow_the_probability_between_pixels():
    # falls from 1 to 0 over ten columns: 0.5 is crossed at x = 8 (the centre of column j lies at j + 0.5)
    columns = np.clip((13 - (np.arange(20) + 0.5)) / 10, 0, 1)
    probability = np.tile(columns, (12, 1)).astype(np.float32)
    (polygon,) = find_polygons((probability >= 0.5).astype(np.uint8), probability, threshold=0.5)
    x, y = polygon.outer.T
    assert x.max() == pytest.approx(8, abs=1e-6)
    assert (x.min(), y.min(), y.max()) == pytest.approx((0, 0, 12), abs=1e-6)
    # an eighth of a pixel is missing where the outline turns at each of the four corners
    assert polygon.area == pytest.approx(8 * 12 - 4 / 8)


def test_a_full_mask_is_the_frame():
    (polygon,) = find_polygons(np.ones((6, 9), np.uint8), np.ones((6, 9), np.float32), threshold=0.5)
    assert polygon.outer.min(axis=0).tolist() == [0, 0]
    assert polygon.outer.max(axis=0).tolist() == [9, 6]
    assert polygon.area == pytest.approx(54 - 4 / 8)


def test_holes_belong_to_their_polygon_and_the_largest_comes_first():
    mask = np.zeros((20, 30), np.uint8)
    mask[2:5, 2:5] = 1
    mask[6:18, 8:28] = 1
    mask[9:12, 12:16] = 0
    large, small = find_polygons(mask, mask.astype(np.float32), threshold=0.5)
    assert (len(large.holes), len(small.holes)) == (1, 0)
    assert large.outer.mean(axis=0) == pytest.approx((18, 12), abs=0.5)
    assert large.area == pytest.approx(12 * 20 - 12, abs=1.5)
    for line in (large.outer, *large.holes, small.outer):
        assert line[0].tolist() == line[-1].tolist()


@pytest.mark.parametrize("place", [(0, 0), (5, 8), (3, 4)])
def test_a_single_pixel_is_outlined(place):
    mask = np.zeros((6, 9), np.uint8)
    mask[place] = 1
    (polygon,) = find_polygons(mask, np.where(mask, 0.9, 0.1).astype(np.float32), threshold=0.5)
    assert inside_of([polygon], mask.shape).sum() == 1
    assert 0 < polygon.area <= 1


def test_an_empty_mask_has_no_outline():
    assert find_polygons(np.zeros((5, 5), np.uint8), np.zeros((5, 5), np.float32), threshold=0.5) == []


def test_a_probability_that_equals_the_threshold_is_inside():
    probability = np.full((4, 4), 0.2, np.float32)
    probability[1, 2] = 0.5
    mask = (probability >= 0.5).astype(np.uint8)
    np.testing.assert_array_equal(inside_of(find_polygons(mask, probability, threshold=0.5), (4, 4)), mask)
