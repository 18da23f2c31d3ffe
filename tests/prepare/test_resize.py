"""Resizing: the image as Pillow does it, masks by area, exactly."""

import hashlib

import numpy as np
import pytest
from PIL import Image

from mhsvm.prepare.resize import as_height_width, mask_coverage, resize_classes, resize_image


def test_sizes():
    assert as_height_width(256) == (256, 256)
    assert as_height_width((192, 256)) == (192, 256)
    with pytest.raises(ValueError, match=r"are at least 1 pixel; got \(0, 5\)"):
        as_height_width((0, 5))


def test_image_of_the_right_size_is_unchanged():
    image = np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)
    assert resize_image(image, (6, 9)) is image


def test_image_is_resized_with_antialiasing():
    # Stripes of one pixel: without antialiasing, an eighth of the size would be black or white.
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 254
    resized = resize_image(stripes, (8, 4))
    assert resized.shape == (8, 4, 3)
    assert resized.dtype == np.uint8
    assert abs(resized[:, 1:-1].astype(int) - 127).max() <= 1
    pillow = Image.fromarray(stripes).resize((4, 8), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(resized, np.asarray(pillow))


# In one call, Pillow 13.0 resizes the second and third vertically first: 22 and 14 % of the bytes differ.
@pytest.mark.parametrize(
    ("height", "width", "size", "digest"),
    [
        (300, 300, (256, 256), "e254cde342bb9a6b"),
        (382, 286, (256, 256), "e3a0d8cdc203ba3d"),
        (900, 200, (64, 96), "95663b46c18e6fcd"),
        (60, 100, (128, 96), "c8b8fea83d9fbbe8"),
    ],
)
def test_images_are_resized_to_the_same_bytes_by_each_pillow(height, width, size, digest):
    rows, columns, channels = np.ogrid[:height, :width, :3]
    image = ((rows * rows * 7 + columns * 31 + rows * columns * (channels + 3)) % 251).astype(np.uint8)
    assert hashlib.sha256(resize_image(image, size).tobytes()).hexdigest()[:16] == digest


def test_coverage_of_the_right_size_is_0_or_255():
    mask = np.eye(5, dtype=np.uint8)
    np.testing.assert_array_equal(mask_coverage(mask, 5), mask * 255)
    np.testing.assert_array_equal(mask_coverage(mask.astype(bool), 5), mask * 255)


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (11, 14), (20, 9), (25, 30), (12, 10)])
def test_coverage_is_the_exact_area(size):
    mask = np.random.default_rng(1).random((12, 10)) < 0.5
    h, w = size
    # On a grid so fine that every edge of both grids falls between two cells.
    fine = np.kron(mask, np.ones((h, w), np.int64))
    area = fine.reshape(h, 12, w, 10).sum(axis=(1, 3))
    expected = (area * 255 * 2 + 120) // (2 * 120)
    np.testing.assert_array_equal(mask_coverage(mask, size), expected)


def test_half_covered_is_lesion():
    assert mask_coverage(np.array([[1, 0]], np.uint8), (1, 1)).item() == 128
    # A third of seven pixels each, half of the middle box: thirds are not exact in floating point.
    assert mask_coverage(np.array([[0, 0, 0, 0, 1, 1, 1]] * 7, np.uint8)[:, 1:], (3, 1)).tolist() == [[128]] * 3


def test_coverage_keeps_the_mean():
    mask = np.random.default_rng(2).random((450, 667)) < 0.3
    assert abs(mask_coverage(mask, 256).mean() / 255 - mask.mean()) < 1e-3


def test_classes_by_largest_area():
    mask = np.array([[0, 1, 1, 255, 255, 2], [0, 0, 1, 255, 2, 255]], np.uint8)
    np.testing.assert_array_equal(resize_classes(mask, (1, 2), 3), [[0, 255]])
    np.testing.assert_array_equal(resize_classes(mask, (2, 6), 3), mask)


def test_classes_among_equals_the_lower_index():
    assert resize_classes(np.array([[2, 1]], np.uint8), (1, 1), 3).item() == 1
    assert resize_classes(np.array([[255, 2]], np.uint8), (1, 1), 3).item() == 2


def test_classes_of_two_agree_with_coverage():
    mask = (np.random.default_rng(3).random((33, 47)) < 0.4).astype(np.uint8)
    majority = resize_classes(mask, (10, 12), 2)
    coverage = mask_coverage(mask, (10, 12))
    assert (majority[coverage > 128] == 1).all()
    assert (majority[coverage < 128] == 0).all()
