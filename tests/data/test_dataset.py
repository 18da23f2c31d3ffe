"""A part of a prepared set in memory: the right images, in the order asked for."""

import numpy as np
import pytest
import torch

from mhsvm.data.dataset import load_dataset
from mhsvm.store import PreparedSet, Sample, write_set


@pytest.fixture
def prepared(tmp_path):
    generator = np.random.default_rng(0)
    samples = [
        Sample(
            id=f"case {row}",
            image=generator.integers(256, size=(4, 6, 3), dtype=np.uint8),
            mask=generator.integers(3, size=(4, 6), dtype=np.uint8),
            original_size=(40, 60),
        )
        for row in range(5)
    ]
    path = tmp_path / "made.h5"
    write_set(path, samples, name="made", size=(4, 6), num_classes=3, attributes={}, total=5)
    with PreparedSet.open(path) as opened:
        yield opened


def test_images_come_in_the_order_of_the_ids(prepared):
    dataset = load_dataset(prepared, ["case 3", "case 0"])
    assert (len(dataset), dataset.ids, dataset.num_classes) == (2, ("case 3", "case 0"), 3)
    assert dataset.images.dtype == dataset.masks.dtype == torch.uint8
    np.testing.assert_array_equal(dataset.images.numpy(), prepared.images([3, 0]))
    np.testing.assert_array_equal(dataset.masks.numpy(), prepared.masks([3, 0]))


def test_no_image_is_lost_in_silence(prepared):
    ids = ["case 1", *(f"other {row}" for row in range(7))]
    with pytest.raises(ValueError, match=r"made.h5 has no image other 0, .*other 4 \(7 ids are missing\)"):
        load_dataset(prepared, ids)
