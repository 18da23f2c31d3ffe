"""Probabilities at another size."""

import numpy as np
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
