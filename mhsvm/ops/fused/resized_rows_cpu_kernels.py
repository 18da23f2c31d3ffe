"""Rows of a normalized and resized map in CPU kernels, computed one by one in small buffers.

Maps are channels last and flat. A vector holds 16 channels of a cell; past the last channel it reads and writes the
next cell, which is written later, so that every buffer has LANES numbers more than a row.
"""

import numpy as np

from mhsvm.ops.scan.cpu.lanes import fused, helper, larger, load, splat, store
from mhsvm.ops.scan.cpu.layout import LANES

KEEP, HALVE, DOUBLE = 0, 1, 2


@helper
def copy_row(source, o_source, size, target, o_target):
    whole = size - size % LANES
    for i in range(0, whole, LANES):
        store(target, o_target + i, load(source, o_source + i))
    for i in range(whole, size):
        target[o_target + i] = source[o_source + i]


@helper
def add_row(source, o_source, size, target):
    whole = size - size % LANES
    for i in range(0, whole, LANES):
        store(target, i, load(target, i) + load(source, o_source + i))
    for i in range(whole, size):
        target[i] += source[o_source + i]


@helper
def folded(w, c):
    """Cells of a row that are taken as one with more channels, which fill whole vectors; 1 where they do not."""
    fold = 1
    while fold * c % LANES:
        fold *= 2
    return fold if w % fold == 0 else 1


@helper
def readable(x, o_x, w, c, row):
    """Where to read a row of x: in place, or copied to `row` where the last vector would pass its end."""
    if c % LANES == 0:
        return x, o_x
    copy_row(x, o_x, w * c, row, 0)
    return row, 0


@helper
def read_parameters(moments, o_moments, weight, bias, c, fold, means, rates, scales, shifts):
    for at in range(c * fold):
        channel = at % c
        means[at] = moments[o_moments + channel]
        rates[at] = moments[o_moments + c + channel]
        scales[at] = rates[at] * weight[channel]
        shifts[at] = bias[channel]


@helper
def _normalize(x, o_x, w, c, row, means, scales, shifts, target, o_target):
    cells, at = readable(x, o_x, w, c, row)
    for cell in range(w):
        for v in range(0, c, LANES):
            centered = load(cells, at + cell * c + v) - load(means, v)
            store(target, o_target + cell * c + v, fused(centered, load(scales, v), load(shifts, v)))


@helper
def _pool(pair, lower, w_out, c, target):
    for cell in range(w_out):
        for v in range(0, c, LANES):
            at = 2 * cell * c + v
            top = larger(load(pair, at), load(pair, at + c))
            store(target, cell * c + v, larger(top, larger(load(pair, lower + at), load(pair, lower + at + c))))


@helper
def _widen(line, w, c, target):
    """A row of 2w cells between those of `line`, the corners on the corners."""
    left, rest = 0, 0
    for cell in range(2 * w):
        fraction = splat(np.float32(rest / (2 * w - 1)))
        right = min(left + 1, w - 1)
        for v in range(0, c, LANES):
            x = load(line, left * c + v)
            store(target, cell * c + v, fused(fraction, load(line, right * c + v) - x, x))
        rest += w - 1
        if rest >= 2 * w - 1:
            left, rest = left + 1, rest - (2 * w - 1)


@helper
def resized_row(x, o_x, i, h, w, c, fold, resize, row, means, scales, shifts, pair, line, target):
    """Row i of the normalized and resized map; for DOUBLE, rows are asked for in their order."""
    size, half = w * c, w * c + LANES
    if resize == KEEP:
        _normalize(x, o_x + i * size, w // fold, c * fold, row, means, scales, shifts, target, 0)
    elif resize == HALVE:
        for j in range(2):
            _normalize(x, o_x + (2 * i + j) * size, w // fold, c * fold, row, means, scales, shifts, pair, j * half)
        _pool(pair, half, w // 2, c, target)
    else:
        top, rest = i * (h - 1) // (2 * h - 1), i * (h - 1) % (2 * h - 1)
        below = min(top + 1, h - 1)
        if i == 0:
            _normalize(x, o_x, w // fold, c * fold, row, means, scales, shifts, pair, 0)
        if i == 0 or top != (i - 1) * (h - 1) // (2 * h - 1):
            _normalize(x, o_x + below * size, w // fold, c * fold, row, means, scales, shifts, pair, below % 2 * half)
        fraction = splat(np.float32(rest / (2 * h - 1)))
        for at in range(0, size, LANES):
            upper = load(pair, top % 2 * half + at)
            store(line, at, fused(fraction, load(pair, below % 2 * half + at) - upper, upper))
        _widen(line, w, c, target)
