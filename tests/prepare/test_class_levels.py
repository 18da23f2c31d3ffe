"""Prepared sets of older versions whose class masks were lesion masks."""

import numpy as np
import pytest

from mhsvm.prepare.class_levels import check_classes
from mhsvm.store import PreparedSet, Sample, write_set


@pytest.fixture
def with_masks(tmp_path):
    """Write and open a set with a mask of 2 x 2 pixels for each list of levels."""

    def make(*levels: list[int], num_classes: int = 2) -> PreparedSet:
        masks = [np.array(own, np.uint8).reshape(2, 2) for own in levels]
        samples = [Sample(f"c{row}", np.zeros((2, 2, 3), np.uint8), mask, (2, 2)) for row, mask in enumerate(masks)]
        path = tmp_path / "old.h5"
        write_set(path, samples, name="old", size=(2, 2), num_classes=num_classes, attributes={}, total=len(samples))
        return PreparedSet.open(path)

    return make


def test_a_set_of_lesion_masks_is_refused(with_masks):
    with (
        with_masks([0, 0, 0, 0], [0, 255, 255, 0]) as prepared,
        pytest.raises(ValueError, match=r"old\.h5 of 2 classes has no pixel of a class; prepare it again:\n") as caught,
    ):
        check_classes(prepared)
    assert "all 2 masks, such as c1\n    fix: in a class mask 255 means ignore." in str(caught.value)


@pytest.mark.parametrize("levels", [[[0, 255, 0, 0], [0, 1, 255, 0]], [[0, 0, 0, 0]]])
def test_other_sets_are_not(with_masks, levels):
    with with_masks(*levels) as prepared:
        check_classes(prepared)


def test_coverage_of_a_lesion_mask_is_no_class(with_masks):
    with with_masks([0, 255, 255, 0], num_classes=1) as prepared:
        check_classes(prepared)
