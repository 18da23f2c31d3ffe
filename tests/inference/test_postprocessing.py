"""Cleaning of masks: what is kept, what is filled, what is left alone."""

import numpy as np
import pytest

from mhsvm.inference.postprocessing import clean_mask, count_regions


def mask_of(*rows: str) -> np.ndarray:
    return np.array([[int(cell) if cell.isdigit() else 0 for cell in row] for row in rows], np.uint8)


SPECKS = mask_of(
    "11......",
    "11...111",
    ".....1.1",
    ".1...111",
)


def test_the_largest_region_stays():
    expected = mask_of(
        "........",
        ".....111",
        ".....1.1",
        ".....111",
    )
    cleaned = clean_mask(SPECKS, largest_component=True, fill_holes=False)
    np.testing.assert_array_equal(cleaned, expected)
    assert cleaned.dtype == np.uint8


def test_a_hole_is_filled():
    expected = SPECKS.copy()
    expected[2, 6] = 1
    np.testing.assert_array_equal(clean_mask(SPECKS, largest_component=False, fill_holes=True), expected)


def test_both_and_none():
    expected = mask_of("........", ".....111", ".....111", ".....111")
    np.testing.assert_array_equal(clean_mask(SPECKS, largest_component=True, fill_holes=True), expected)
    untouched = clean_mask(SPECKS, largest_component=False, fill_holes=False)
    np.testing.assert_array_equal(untouched, SPECKS)
    assert untouched is not SPECKS


def test_corners_join_a_region_and_close_a_hole():
    ring = mask_of(".1.", "1.1", ".1.")
    assert count_regions(ring > 0) == 1
    np.testing.assert_array_equal(clean_mask(ring, largest_component=True, fill_holes=False), ring)
    np.testing.assert_array_equal(
        clean_mask(ring, largest_component=False, fill_holes=True), mask_of(".1.", "111", ".1.")
    )


def test_a_hole_that_is_open_to_the_frame_stays():
    bay = mask_of("1.1", "1.1", "111")
    np.testing.assert_array_equal(clean_mask(bay, largest_component=True, fill_holes=True), bay)


def test_of_equal_regions_the_upper_stays():
    np.testing.assert_array_equal(
        clean_mask(mask_of("...1", "....", "1..."), largest_component=True, fill_holes=False),
        mask_of("...1", "....", "...."),
    )


def test_classes_are_cleaned_one_by_one_and_fill_background_only():
    labels = mask_of(
        "1111.2",
        "1.21..",
        "1111.2",
        ".....2",
    )
    expected = mask_of(
        "1111..",
        "1111..",
        "1111.2",
        ".....2",
    )
    np.testing.assert_array_equal(clean_mask(labels, largest_component=True, fill_holes=True), expected)
    kept = clean_mask(labels, largest_component=False, fill_holes=True)
    assert kept[1].tolist() == [1, 1, 2, 1, 0, 0]


@pytest.mark.parametrize("value", [0, 1])
def test_empty_and_full_masks_stay(value):
    mask = np.full((4, 5), value, np.uint8)
    np.testing.assert_array_equal(clean_mask(mask, largest_component=True, fill_holes=True), mask)
    assert count_regions(mask > 0) == value
