"""The vector arithmetic of the CPU kernels against numpy in long double."""

import numpy as np
import pytest
from numba import njit

from mhsvm.ops.scan.cpu import lanes

LN2 = np.log(np.longdouble(2))


def apply(function, x):
    @njit
    def run(x, y):
        for i in range(0, len(x), lanes.LANES):
            lanes.store(y, i, function(lanes.load(x, i)))

    y = np.empty_like(x)
    run(x, y)
    return y


@pytest.fixture(scope="module")
def numbers():
    tiny = np.logspace(-30, 0, 2**12)
    return np.concatenate([np.linspace(-80, 80, 2**14), tiny, -tiny]).astype(np.float32)


@pytest.mark.parametrize(
    ("function", "exact"),
    [
        (lanes.exp2, lambda x: np.exp2(x)),
        (lanes.softplus, lambda x: np.maximum(x, 0) + np.log1p(np.exp(-abs(x)))),
        (lanes.sigmoid, lambda x: 1 / (1 + np.exp(-x))),
    ],
)
def test_relative_error(numbers, function, exact):
    numbers = numbers[numbers > -16]
    numbers = numbers[: len(numbers) // lanes.LANES * lanes.LANES]
    expected = exact(numbers.astype(np.longdouble))
    assert (abs(apply(function, numbers) - expected) / expected).max() < 1e-6


def test_exp2_to_one_unit_in_the_last_place(numbers):
    expected = np.exp2(numbers.astype(np.longdouble))
    assert (abs(apply(lanes.exp2, numbers) - expected) / expected).max() < 2**-23


def test_exp2m1_keeps_the_digits_of_small_numbers(numbers):
    expected = np.expm1(numbers.astype(np.longdouble) * LN2)
    scale = np.maximum(abs(expected), np.where(abs(numbers) < 0.5, 0, expected + 1))
    assert (abs(apply(lanes.exp2m1, numbers) - expected) / scale).max() < 2**-22


def test_range_ends_without_wrapping():
    x = np.full(lanes.LANES, -1e30, np.float32)
    assert (apply(lanes.exp2, x) < 2e-38).all()
    assert (apply(lanes.exp2m1, x) == -1).all()
    assert (apply(lanes.softplus, -x) == -x).all()
    assert np.isnan(apply(lanes.exp2, x * np.float32(np.nan))).all()


def test_total_and_comparisons():
    x = np.arange(lanes.LANES, dtype=np.float32)

    @njit
    def run(x, y):
        v = lanes.load(x, 0)
        lanes.store(y, 0, lanes.where_equal(v, lanes.splat(np.float32(3)), lanes.square_root(v)))
        return lanes.total(v)

    y = np.empty_like(x)
    assert run(x, y) == x.sum()
    assert y.tolist() == [np.sqrt(np.float32(3)) if i == 3 else 0 for i in range(lanes.LANES)]
