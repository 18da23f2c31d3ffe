"""Packed weights: rounded matrices, and vectors as they are."""

import numpy as np
import pytest
import torch

from mhsvm.models import create_model
from mhsvm.models.ultralight_weights import _rounded, pack_weights, vector_places


@pytest.mark.parametrize("bits", [2, 10, 11, 23])
def test_rounding_is_to_nearest_and_ties_to_even(bits):
    values = np.random.default_rng(0).normal(size=2000).astype(np.float32)
    fraction, exponent = np.frexp(values.astype(np.float64))
    expected = np.ldexp(np.rint(np.ldexp(fraction, bits)), exponent - bits)
    np.testing.assert_array_equal(_rounded(values, bits), expected)
    ties = np.float32([1 + 2**-bits, 1 + 3 * 2**-bits, -1 - 2**-bits, 0])
    np.testing.assert_array_equal(_rounded(ties, bits), [1, 1 + 4 * 2**-bits, -1, 0])


def test_matrices_are_rounded_and_vectors_stay():
    torch.manual_seed(0)
    model = create_model("ultralight_vm_unet")
    exact, rounded = pack_weights(model), pack_weights(model, significant_bits=10)
    assert rounded.dtype == np.float32
    is_matrix = ~vector_places(model)
    vectors = [value for name, value in model.named_parameters() if name.endswith("bias") or "norm" in name]
    for value in np.concatenate([each.detach().numpy().ravel() for each in vectors]):
        assert value in exact[~is_matrix]
    assert is_matrix.mean() > 0.8
    np.testing.assert_array_equal(rounded[~is_matrix], exact[~is_matrix])
    np.testing.assert_array_equal(rounded[is_matrix], _rounded(exact[is_matrix], 10))
    assert np.abs(rounded - exact).max() <= np.abs(exact).max() / 2**10
