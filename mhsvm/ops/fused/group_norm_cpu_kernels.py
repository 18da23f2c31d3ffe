"""CPU kernels of GroupNorm with resizing, GELU and a skip connection.

A unit is a sample, taken from the counter `taken`. Rows are those of `resized_rows_cpu_kernels`.
"""

import math

import numpy as np

from mhsvm.ops.fused.gelu_cpu_kernels import gelu_gradient_row, gelu_row
from mhsvm.ops.fused.resized_rows_cpu_kernels import (
    HALVE,
    KEEP,
    add_row,
    copy_row,
    folded,
    read_parameters,
    readable,
    resized_row,
)
from mhsvm.ops.scan.cpu.lanes import ONE, ZERO, fused, helper, larger, load, splat, store, take, where_equal
from mhsvm.ops.scan.cpu.layout import LANES


@helper
def _moments(x, o_x, h, w, c, row, row_means, row_squares, means, squares):
    """Mean of each channel and the sum of squares around it: of each row in float32, of rows by Chan in float64."""
    for channel in range(c):
        means[channel] = squares[channel] = 0.0
    weight = np.float32(1 / w)
    for i in range(h):
        cells, at = readable(x, o_x + i * w * c, w, c, row)
        for v in range(0, c, LANES):
            total = splat(ZERO)
            for cell in range(w):
                total = total + load(cells, at + cell * c + v)
            mean, around = total * splat(weight), splat(ZERO)
            for cell in range(w):
                distance = load(cells, at + cell * c + v) - mean
                around = fused(distance, distance, around)
            store(row_means, v, mean)
            store(row_squares, v, around)
        for channel in range(c):
            distance = row_means[channel] - means[channel]
            means[channel] += distance / (i + 1)
            squares[channel] += row_squares[channel] + distance * distance * (w * i / (i + 1))


@helper
def _write_moments(means, squares, cells, c, fold, groups, eps, moments, o_moments):
    """The mean and 1 / deviation of a group, for each of its channels, from those of `fold` parts of its cells."""
    width = c // groups
    for first in range(0, c, width):
        mean, around = 0.0, 0.0
        for part in range(fold):
            for channel in range(part * c + first, part * c + first + width):
                mean += means[channel] / (fold * width)
        for part in range(fold):
            for channel in range(part * c + first, part * c + first + width):
                around += squares[channel] + cells / fold * (means[channel] - mean) ** 2
        for channel in range(first, first + width):
            moments[o_moments + channel] = mean
            moments[o_moments + c + channel] = 1 / math.sqrt(around / (cells * width) + eps)


@helper
def _narrow(grads, w, c, mask, line):
    """The gradient of `_widen`, added to `line`."""
    left, rest = 0, 0
    for cell in range(2 * w):
        fraction = splat(np.float32(rest / (2 * w - 1)))
        right = min(left + 1, w - 1)
        for v in range(0, c, LANES):
            grad = load(grads, cell * c + v) * load(mask, v)
            of_right = fraction * grad
            store(line, left * c + v, load(line, left * c + v) + (grad - of_right))
            store(line, right * c + v, load(line, right * c + v) + of_right)
        rest += w - 1
        if rest >= 2 * w - 1:
            left, rest = left + 1, rest - (2 * w - 1)


@helper
def _scatter_to_largest(pair, lower, w_out, c, grads, parts):
    """Each gradient goes to the first of the four cells that has the maximum."""
    for cell in range(w_out):
        for side in range(2):
            for v in range(0, c, LANES):
                at, grad = 2 * cell * c + v, load(grads, cell * c + v)
                x00, x01 = load(pair, at), load(pair, at + c)
                x10, x11 = load(pair, lower + at), load(pair, lower + at + c)
                largest = larger(larger(x00, x01), larger(x10, x11))
                to00 = where_equal(x00, largest, grad)
                to01 = where_equal(x01, largest, grad - to00)
                to10 = where_equal(x10, largest, grad - to00 - to01)
                if side == 0:
                    store(parts, at, to00)
                    store(parts, lower + at, to10)
                else:
                    store(parts, at + c, to01)
                    store(parts, lower + at + c, grad - to00 - to01 - to10)


@helper
def _finish_row(grads, o_grads, x, o_x, w, c, row, means, rates, partial, sums, grad_x):
    """Add a row of the normalized map's gradient, alone and times the normalized map, to sums; keep it in grad_x."""
    cells, at = readable(x, o_x, w, c, row)
    for v in range(0, c, LANES):
        total, product = splat(ZERO), splat(ZERO)
        for cell in range(w):
            grad = load(grads, o_grads + cell * c + v)
            total = total + grad
            product = fused(grad, (load(cells, at + cell * c + v) - load(means, v)) * load(rates, v), product)
        store(partial, v, total)
        store(partial, c + LANES + v, product)
    for channel in range(c):
        sums[channel] += partial[channel]
        sums[c + channel] += partial[c + LANES + channel]
    copy_row(grads, o_grads, w * c, grad_x, o_x)


@helper
def _add_between(grads, i, x, o_x, h, w, c, fold, row, means, rates, partial, sums, grad_x, mask, narrowed, parts):
    """Add row i of the doubled map's gradient to the two rows around it, and finish those it is past."""
    half = w * c + LANES
    top, rest = i * (h - 1) // (2 * h - 1), i * (h - 1) % (2 * h - 1)
    if i > 0 and top != (i - 1) * (h - 1) // (2 * h - 1):
        done = (top - 1) % 2 * half
        _finish_row(
            parts, done, x, o_x + (top - 1) * w * c, w // fold, c * fold, row, means, rates, partial, sums, grad_x
        )
        parts[done : done + half] = ZERO
    narrowed[:] = ZERO
    _narrow(grads, w, c, mask, narrowed)
    below, fraction = min(top + 1, h - 1), splat(np.float32(rest / (2 * h - 1)))
    for at in range(0, w * c, LANES):
        grad = load(narrowed, at)
        of_below = fraction * grad
        upper, lower = top % 2 * half + at, below % 2 * half + at
        store(parts, upper, load(parts, upper) + (grad - of_below))
        store(parts, lower, load(parts, lower) + of_below)
    if i == 2 * h - 1:
        _finish_row(
            parts, top % 2 * half, x, o_x + top * w * c, w // fold, c * fold, row, means, rates, partial, sums, grad_x
        )


@helper
def _group_means(grad_parameters, o_grad, weight, rates, cells, c, fold, groups, of_ones, of_map):
    """Means over a group of weight * gradient, alone and times the normalized map, times its rate."""
    width = c // groups
    for first in range(0, c, width):
        mean, mean_of_map = 0.0, 0.0
        for channel in range(first, first + width):
            mean += weight[channel] * grad_parameters[o_grad + channel] / (cells * width)
            mean_of_map += weight[channel] * grad_parameters[o_grad + c + channel] / (cells * width)
        for part in range(fold):
            for channel in range(part * c + first, part * c + first + width):
                of_ones[channel] = mean * rates[channel]
                of_map[channel] = mean_of_map * rates[channel]


@helper
def _write_gradient(x, o_x, w, c, row, grads, means, rates, scales, of_ones, of_map, target, grad_x):
    cells, at = readable(x, o_x, w, c, row)
    grad_cells, o_grads = readable(grad_x, o_x, w, c, grads)
    written, o_written = (grad_x, o_x) if c % LANES == 0 else (target, 0)
    for cell in range(w):
        for v in range(0, c, LANES):
            normalized = (load(cells, at + cell * c + v) - load(means, v)) * load(rates, v)
            common = fused(normalized, load(of_map, v), load(of_ones, v))
            grad = load(grad_cells, o_grads + cell * c + v)
            store(written, o_written + cell * c + v, grad * load(scales, v) - common)
    if c % LANES:
        copy_row(target, 0, w * c, grad_x, o_x)


def group_norm_fwd_cpu_kernel(
    x, weight, bias, skip, y, moments, h, w, h_out, w_out, c, groups, eps, resize, use_skip, units, taken
):  # fmt: skip
    """x (b, h, w, c) -> y (b, h_out, w_out, c) and moments (b, 2, c), all flat."""
    fold = folded(w, c)
    pad, half = fold * c + LANES, w * c + LANES
    row, line, pair = np.zeros(half, np.float32), np.zeros(half, np.float32), np.zeros(2 * half, np.float32)
    target = np.zeros(w_out * c + LANES, np.float32)
    means, rates = np.zeros(pad, np.float32), np.zeros(pad, np.float32)
    scales, shifts = np.zeros(pad, np.float32), np.zeros(pad, np.float32)
    row_means, row_squares = np.zeros(pad, np.float32), np.zeros(pad, np.float32)
    channel_means, squares = np.zeros(fold * c), np.zeros(fold * c)
    unit = take(taken)
    while unit < units:
        o_x, o_y, o_moments = unit * h * w * c, unit * h_out * w_out * c, unit * 2 * c
        _moments(x, o_x, h, w // fold, c * fold, row, row_means, row_squares, channel_means, squares)
        _write_moments(channel_means, squares, h * w, c, fold, groups, eps, moments, o_moments)
        read_parameters(moments, o_moments, weight, bias, c, fold, means, rates, scales, shifts)
        for i in range(h_out):
            resized_row(x, o_x, i, h, w, c, fold, resize, row, means, scales, shifts, pair, line, target)
            gelu_row(target, w_out * c)
            at = o_y + i * w_out * c
            if use_skip:
                add_row(skip, at, w_out * c, target)
            copy_row(target, 0, w_out * c, y, at)
        unit = take(taken)


def group_norm_bwd_cpu_kernel(
    grad_y, x, weight, bias, moments, grad_x, grad_parameters, h, w, h_out, w_out, c, groups, resize, units, taken
):  # fmt: skip
    """Gradients of `group_norm_fwd_cpu_kernel`: grad_x like x; of bias and weight, (b, 2, c)."""
    fold = folded(w, c)
    pad, half = fold * c + LANES, w * c + LANES
    row, line, pair = np.zeros(half, np.float32), np.zeros(half, np.float32), np.zeros(2 * half, np.float32)
    parts, narrowed = np.zeros(2 * half, np.float32), np.zeros(half, np.float32)
    target, grads = np.zeros(w_out * c + LANES, np.float32), np.zeros(w_out * c + LANES, np.float32)
    means, rates = np.zeros(pad, np.float32), np.zeros(pad, np.float32)
    scales, shifts = np.zeros(pad, np.float32), np.zeros(pad, np.float32)
    of_ones, of_map, mask = np.zeros(pad, np.float32), np.zeros(pad, np.float32), np.zeros(pad, np.float32)
    partial, sums = np.zeros(2 * pad, np.float32), np.zeros(2 * fold * c)
    mask[:c] = ONE
    unit = take(taken)
    while unit < units:
        o_x, o_y, o_moments = unit * h * w * c, unit * h_out * w_out * c, unit * 2 * c
        read_parameters(moments, o_moments, weight, bias, c, fold, means, rates, scales, shifts)
        sums[:] = 0.0
        parts[:] = ZERO
        for i in range(h_out):
            resized_row(x, o_x, i, h, w, c, fold, resize, row, means, scales, shifts, pair, line, target)
            copy_row(grad_y, o_y + i * w_out * c, w_out * c, grads, 0)
            gelu_gradient_row(target, w_out * c, grads)
            if resize == KEEP:
                _finish_row(grads, 0, x, o_x + i * w * c, w // fold, c * fold, row, means, rates, partial, sums, grad_x)
            elif resize == HALVE:
                _scatter_to_largest(pair, half, w_out, c, grads, parts)
                for j in range(2):
                    o_row = o_x + (2 * i + j) * w * c
                    _finish_row(
                        parts, j * half, x, o_row, w // fold, c * fold, row, means, rates, partial, sums, grad_x
                    )
            else:
                _add_between(
                    grads, i, x, o_x, h, w, c, fold, row, means, rates, partial, sums, grad_x, mask, narrowed, parts
                )  # fmt: skip
        for channel in range(c):
            grad_bias, grad_weight = 0.0, 0.0
            for part in range(fold):
                grad_bias += sums[part * c + channel]
                grad_weight += sums[(fold + part) * c + channel]
            grad_parameters[o_moments + channel] = grad_bias
            grad_parameters[o_moments + c + channel] = grad_weight
        _group_means(grad_parameters, o_moments, weight, rates, h * w, c, fold, groups, of_ones, of_map)
        for i in range(h):
            _write_gradient(
                x, o_x + i * w * c, w // fold, c * fold, row, line, means, rates, scales, of_ones, of_map, narrowed,
                grad_x,
            )  # fmt: skip
        unit = take(taken)
