"""CPU kernels of the statistics over routes, elementwise. A unit is a slice of a head's plane (l, d), and
is taken from the counter `taken`.

y is (plane, route, element) and the statistics are (plane, element), all contiguous. The last elements of a plane, if
they do not fill a vector, are copied to a buffer.
"""

from mhsvm.ops.scan.cpu.lanes import (
    ONE,
    ZERO,
    fused,
    helper,
    load,
    smaller,
    splat,
    square_root,
    store,
    take,
    where_equal,
)
from mhsvm.ops.scan.cpu.layout import LANES, SLICE
from mhsvm.ops.scan.cpu.tiles import numbers


@helper
def _minimum(y, at, stride, k):
    minimum = load(y, at)
    for route in range(1, k):
        minimum = smaller(load(y, at + route * stride), minimum)
    return minimum


@helper
def _mean_above(y, at, stride, k, weight, minimum):
    above = splat(ZERO)
    for route in range(k):
        above = above + (load(y, at + route * stride) - minimum)
    return above * splat(weight)


@helper
def _deviation(y, at, stride, k, unbiased_weight, minimum, mean):
    squares = splat(ZERO)
    for route in range(k):
        distance = load(y, at + route * stride) - minimum - mean
        squares = fused(distance, distance, squares)
    return square_root(squares * splat(unbiased_weight))


@helper
def _statistics(y, at, stride, k, weight, unbiased_weight, eps, total, variation, o_out):
    """Sum and coefficient of variation of k vectors that are `stride` apart."""
    minimum = _minimum(y, at, stride, k)
    mean = _mean_above(y, at, stride, k, weight, minimum)
    added = splat(ZERO)
    for route in range(k):
        added = added + load(y, at + route * stride)
    store(total, o_out, added)
    deviation = _deviation(y, at, stride, k, unbiased_weight, minimum, mean)
    store(variation, o_out, deviation / (mean + splat(eps)))


@helper
def _gradients(y, at, stride, k, weight, unbiased_weight, eps, grad_total, grad_variation, o_in, grad_y):
    minimum = _minimum(y, at, stride, k)
    mean = _mean_above(y, at, stride, k, weight, minimum)
    deviation = _deviation(y, at, stride, k, unbiased_weight, minimum, mean)
    grad_deviation = load(grad_variation, o_in) / (mean + splat(eps))
    grad_mean = grad_deviation * deviation / (mean + splat(eps))
    # As in torch, a deviation of 0 has derivative 0, and routes that share the minimum share its gradient.
    flat = where_equal(deviation, splat(ZERO), splat(ONE))
    derivative = grad_deviation * splat(unbiased_weight) * (splat(ONE) - flat) / (deviation + flat)
    ties = splat(ZERO)
    for route in range(k):
        ties = ties + where_equal(load(y, at + route * stride), minimum, splat(ONE))
    for route in range(k):
        y_j = load(y, at + route * stride)
        of_minimum = fused(grad_mean, splat(-weight), where_equal(y_j, minimum, grad_mean / ties))
        grad_j = fused(derivative, y_j - minimum - mean, load(grad_total, o_in) + of_minimum)
        store(grad_y, at + route * stride, grad_j)


@helper
def _copy_numbers(source, o_source, count, target, o_target):
    for i in range(count):
        target[o_target + i] = source[o_source + i]


def route_statistics_fwd_cpu_kernel(y, total, variation, k, size, weight, unbiased_weight, eps, units, taken):
    """y (planes, k, size) -> total, variation (planes, size), all flat; the weights are 1 / k and 1 / (k - 1)."""
    slices = -(-size // SLICE)
    rest, rest_total, rest_variation = numbers(k * LANES), numbers(LANES), numbers(LANES)
    unit = take(taken)
    while unit < units:
        plane, begin = unit // slices, unit % slices * SLICE
        o_y, o_out = plane * k * size, plane * size
        for i in range(begin, min(begin + SLICE, size), LANES):
            if i + LANES <= size:
                _statistics(y, o_y + i, size, k, weight, unbiased_weight, eps, total, variation, o_out + i)
            else:
                for route in range(k):
                    _copy_numbers(y, o_y + route * size + i, size - i, rest, route * LANES)
                _statistics(rest, 0, LANES, k, weight, unbiased_weight, eps, rest_total, rest_variation, 0)
                _copy_numbers(rest_total, 0, size - i, total, o_out + i)
                _copy_numbers(rest_variation, 0, size - i, variation, o_out + i)
        unit = take(taken)


def route_statistics_bwd_cpu_kernel(
    y, grad_total, grad_variation, grad_y, k, size, weight, unbiased_weight, eps, units, taken
):  # fmt: skip
    """Gradient of `route_statistics_fwd_cpu_kernel`, grad_y like y."""
    slices = -(-size // SLICE)
    rest, rest_grad = numbers(k * LANES), numbers(k * LANES)
    rest_total, rest_variation = numbers(LANES), numbers(LANES)
    unit = take(taken)
    while unit < units:
        plane, begin = unit // slices, unit % slices * SLICE
        o_y, o_in = plane * k * size, plane * size
        for i in range(begin, min(begin + SLICE, size), LANES):
            if i + LANES <= size:
                _gradients(
                    y, o_y + i, size, k, weight, unbiased_weight, eps, grad_total, grad_variation, o_in + i, grad_y
                )
            else:
                for route in range(k):
                    _copy_numbers(y, o_y + route * size + i, size - i, rest, route * LANES)
                _copy_numbers(grad_total, o_in + i, size - i, rest_total, 0)
                _copy_numbers(grad_variation, o_in + i, size - i, rest_variation, 0)
                _gradients(rest, 0, LANES, k, weight, unbiased_weight, eps, rest_total, rest_variation, 0, rest_grad)
                for route in range(k):
                    _copy_numbers(rest_grad, route * LANES, size - i, grad_y, o_y + route * size + i)
        unit = take(taken)
