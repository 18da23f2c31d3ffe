"""Probabilities at another size."""

import numpy as np
import pytest
import torch

from mhsvm.inference.probability import resize_probability


def test_probabilities_are_interpolated():
    maps = torch.tensor([[[[0.0, 1.0]]]])
    np.testing.assert_allclose(resize_probability(maps, (1, 4)).flatten(), [0, 0.25, 0.75, 1], atol=1e-6)
    assert resize_probability(maps, (1, 2)) is maps
    checks = torch.arange(64.0).view(1, 1, 8, 8) % 2
    down = resize_probability(checks, (2, 2))
    # averaged on the way down, not picked
    assert ((down > 0.3) & (down < 0.7)).all()


def test_maps_with_one_column():
    rows = torch.tensor([0.0, 0.25, 0.5, 1.0]).view(1, 1, 4, 1)
    expected = [0, 0.0625, 0.1875, 0.3125, 0.4375, 0.625, 0.875, 1]
    for maps in (rows, rows.expand(2, 3, 4, 5)):
        found = resize_probability(maps, (8, 1))
        assert found.shape == (*maps.shape[:2], 8, 1)
        np.testing.assert_allclose(found, torch.tensor(expected).view(8, 1).expand_as(found), atol=1e-6)
    assert resize_probability(rows.expand(1, 1, 4, 5), (1, 1)).item() == pytest.approx(0.4375, abs=0.03)
