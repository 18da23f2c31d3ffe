"""Files that the process already holds open through h5py, with any of its settings."""

import h5py
import numpy as np
import pytest

from mhsvm.store import PreparedSet, Sample, write_set


@pytest.mark.parametrize(
    "settings",
    [
        {"mode": "r"},
        {"mode": "r", "locking": False},
        {"mode": "r", "locking": True},
        {"mode": "r", "locking": "best-effort"},
        {"mode": "r+"},
        {"mode": "r+", "locking": False},
        {"mode": "a", "libver": "latest"},
        {"mode": "r", "driver": "core"},
        {"mode": "r", "driver": "stdio"},
    ],
    ids=str,
)
def test_a_set_that_is_held_open_is_read(settings, tmp_path):
    path, image = tmp_path / "held.h5", np.arange(8 * 12 * 3, dtype=np.uint8).reshape(8, 12, 3)
    samples = [Sample("a", image, np.zeros((8, 12), np.uint8), (8, 12))]
    write_set(path, samples, name="held", size=(8, 12), num_classes=1, attributes={}, total=1)
    with h5py.File(path, **settings) as held:
        with PreparedSet.open(path) as prepared:
            assert prepared.ids == ("a",)
            assert np.array_equal(prepared.images([0])[0], image)
        assert "format" in held.attrs
