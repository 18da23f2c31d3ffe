"""Kernels of the statistics over routes, every element of a map for itself. A unit is a slice of a head's plane.

y lies as (plane, route, element), the statistics as (plane, element). Where a plane ends inside a vector, its rest goes
by way of a buffer.
"""

import numpy as np

from mhsvm.ops.routes.gates import EPS
from mhsvm.ops.scan.cpu.lanes import ONE, ZERO, fused, helper, load, smaller, splat, square_root, store, where_equal
from mhsvm.ops.scan.cpu.layout import LANES, SLICE
from mhsvm.ops.scan.cpu.tiles import numbers

_EPSILON = np.float32(EPS)


@helper
def _lowest(y, at, stride, k):
    lowest = load(y, at)
    for route in range(1, k):
        lowest = smaller(load(y, at + route * stride), lowest)
    return lowest


@helper
def _mean_above(y, at, stride, k, share, lowest):
    above = splat(ZERO)
    for route in range(k):
        above = above + (load(y, at + route * stride) - lowest)
    return above * splat(share)


@helper
def _deviation(y, at, stride, k, unbiased_share, lowest, mean):
    squares = splat(ZERO)
    for route in range(k):
        distance = load(y, at + route * stride) - lowest - mean
        squares = fused(distance, distance, squares)
    return square_root(squares * splat(unbiased_share))


@helper
def _measure(y, at, stride, k, share, unbiased_share, total, variation, o_out):
    """Sum and coefficient of variation of k vectors that stand `stride` apart."""
    lowest = _lowest(y, at, stride, k)
    mean = _mean_above(y, at, stride, k, share, lowest)
    added = splat(ZERO)
    for route in range(k):
        added = added + load(y, at + route * stride)
    store(total, o_out, added)
    deviation = _deviation(y, at, stride, k, unbiased_share, lowest, mean)
    store(variation, o_out, deviation / (mean + splat(_EPSILON)))


@helper
def _differentiate(y, at, stride, k, share, unbiased_share, grad_total, grad_variation, o_in, grad_y):
    lowest = _lowest(y, at, stride, k)
    mean = _mean_above(y, at, stride, k, share, lowest)
    deviation = _deviation(y, at, stride, k, unbiased_share, lowest, mean)
    grad_deviation = load(grad_variation, o_in) / (mean + splat(_EPSILON))
    grad_mean = grad_deviation * deviation / (mean + splat(_EPSILON))
    # As torch has it, a deviation of 0 has slope 0, and routes that share the minimum share its gradient.
    flat = where_equal(deviation, splat(ZERO), splat(ONE))
    slope = grad_deviation * splat(unbiased_share) * (splat(ONE) - flat) / (deviation + flat)
    ties = splat(ZERO)
    for route in range(k):
        ties = ties + where_equal(load(y, at + route * stride), lowest, splat(ONE))
    for route in range(k):
        y_j = load(y, at + route * stride)
        of_minimum = fused(grad_mean, splat(-share), where_equal(y_j, lowest, grad_mean / ties))
        store(grad_y, at + route * stride, fused(slope, y_j - lowest - mean, load(grad_total, o_in) + of_minimum))


@helper
def _copy_part(source, o_source, count, target, o_target):
    for i in range(count):
        target[o_target + i] = source[o_source + i]


def measure_routes(y, total, variation, k, size, share, unbiased_share, first, last):
    """y (planes, k, size) -> total, variation (planes, size), all flat; the shares are 1 / k and 1 / (k - 1)."""
    slices = -(-size // SLICE)
    rest, rest_total, rest_variation = numbers(k * LANES), numbers(LANES), numbers(LANES)
    for unit in range(first, last):
        plane, begin = unit // slices, unit % slices * SLICE
        o_y, o_out = plane * k * size, plane * size
        for e in range(begin, min(begin + SLICE, size), LANES):
            if e + LANES <= size:
                _measure(y, o_y + e, size, k, share, unbiased_share, total, variation, o_out + e)
            else:
                for route in range(k):
                    _copy_part(y, o_y + route * size + e, size - e, rest, route * LANES)
                _measure(rest, 0, LANES, k, share, unbiased_share, rest_total, rest_variation, 0)
                _copy_part(rest_total, 0, size - e, total, o_out + e)
                _copy_part(rest_variation, 0, size - e, variation, o_out + e)


def differentiate_routes(y, grad_total, grad_variation, grad_y, k, size, share, unbiased_share, first, last):
    """The gradient of `measure_routes`, grad_y like y."""
    slices = -(-size // SLICE)
    rest, rest_grad = numbers(k * LANES), numbers(k * LANES)
    rest_total, rest_variation = numbers(LANES), numbers(LANES)
    for unit in range(first, last):
        plane, begin = unit // slices, unit % slices * SLICE
        o_y, o_in = plane * k * size, plane * size
        for e in range(begin, min(begin + SLICE, size), LANES):
            if e + LANES <= size:
                _differentiate(y, o_y + e, size, k, share, unbiased_share, grad_total, grad_variation, o_in + e, grad_y)
            else:
                for route in range(k):
                    _copy_part(y, o_y + route * size + e, size - e, rest, route * LANES)
                _copy_part(grad_total, o_in + e, size - e, rest_total, 0)
                _copy_part(grad_variation, o_in + e, size - e, rest_variation, 0)
                _differentiate(rest, 0, LANES, k, share, unbiased_share, rest_total, rest_variation, 0, rest_grad)
                for route in range(k):
                    _copy_part(rest_grad, route * LANES, size - e, grad_y, o_y + route * size + e)
