"""GELU and its derivative in CPU kernels, on a row in a buffer of whole vectors."""

import math

import numpy as np
from numpy.polynomial import Chebyshev, Polynomial

from mhsvm.ops.scan.cpu.lanes import LOG2E, ONE, ZERO, exp2, fused, helper, larger, load, splat, store, where_equal
from mhsvm.ops.scan.cpu.layout import LANES

# The normal distribution's tail above a is exp(-a^2 / 2) times a smooth function of t = 1 / (1 + 0.35 a), here t times
# a polynomial interpolated at Chebyshev's points up to a = 13, beyond which the tail is 0: within 4e-8 of itself.
_SLOPE = 0.35
_LEAST = 1 / (1 + _SLOPE * 13)


def _tail_series(s: np.ndarray) -> np.ndarray:
    t = _LEAST + (s + 1) / 2 * (1 - _LEAST)
    a = (1 / t - 1) / _SLOPE
    return np.array([math.exp(x * x / 2) * math.erfc(x / math.sqrt(2)) / 2 for x in a]) / t


_T0, _T1, _T2, _T3, _T4, _T5, _T6, _T7, _T8 = (
    Chebyshev.interpolate(_tail_series, deg=8, domain=[-1, 1]).convert(kind=Polynomial).coef.astype(np.float32)
)
_P = np.float32(_SLOPE)
_STRETCH, _OFFSET = np.float32(2 / (1 - _LEAST)), np.float32(-(1 + _LEAST) / (1 - _LEAST))
_HALF_LOG2E = np.float32(-LOG2E / 2)
_DENSITY = np.float32(1 / math.sqrt(2 * math.pi))


@helper
def _tail(magnitude, power):
    t = splat(ONE) / fused(splat(_P), magnitude, splat(ONE))
    s = fused(splat(_STRETCH), t, splat(_OFFSET))
    series = fused(splat(_T8), s, splat(_T7))
    series = fused(series, s, splat(_T6))
    series = fused(series, s, splat(_T5))
    series = fused(series, s, splat(_T4))
    series = fused(series, s, splat(_T3))
    series = fused(series, s, splat(_T2))
    series = fused(series, s, splat(_T1))
    series = fused(series, s, splat(_T0))
    return power * t * series


@helper
def gelu_row(row, size):
    """In place."""
    for i in range(0, size, LANES):
        x = load(row, i)
        positive = larger(x, splat(ZERO))
        magnitude = positive + positive - x
        power = exp2(splat(_HALF_LOG2E) * (x * x))
        store(row, i, positive - magnitude * _tail(magnitude, power))


@helper
def gelu_gradient_row(row, size, grads):
    """`grads` times the derivative at `row`, in place."""
    for i in range(0, size, LANES):
        x = load(row, i)
        positive = larger(x, splat(ZERO))
        magnitude = positive + positive - x
        power = exp2(splat(_HALF_LOG2E) * (x * x))
        tail = _tail(magnitude, power)
        # 1 for x >= 0, else 0
        step = where_equal(positive, x, splat(ONE))
        below = fused(splat(ONE) - step - step, tail, step)
        store(grads, i, load(grads, i) * fused(x * splat(_DENSITY), power, below))
