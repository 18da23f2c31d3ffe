"""Operations of the CPU kernels on one tile: up to `TILE` steps of a block of channels, one channel a lane.

A decay is stored as 2^i + rest, with a small relative error of the rest. So a decay near 1 keeps all digits of its
distance from 1, and rounding errors of thousands of steps do not add up. A tiny decay is as exact as float32.

Letters are those of `mhsvm.ops`; r is 0 if delta is given. Offsets into flat arrays are named o_. Tensors of steps are
flat tiles, (steps, LANES), (steps, n) or (steps, r); tensors of channels are flat blocks, (LANES), (n, LANES) or
(r, LANES).
"""

import numpy as np

from mhsvm.ops.scan.cpu.lanes import (
    LN2,
    LOG2E,
    ONE,
    ZERO,
    exp2_parts,
    exp2m1,
    fused,
    helper,
    load,
    sigmoid,
    softplus,
    splat,
    store,
    total,
)
from mhsvm.ops.scan.cpu.layout import LANES


@helper
def _start(strides, tensor, i, head, route, first):
    """Offset of the first row of a route in a flat tensor, from the number `first` of the row on."""
    place = i * strides[tensor, 0] + head * strides[tensor, 1] + route * strides[tensor, 2]
    return place + first * strides[tensor, 4]


@helper
def gather(source, strides, tensor, i, head, route, first, count, order, o_order, steps, row_size, rows):
    """Copy `count` numbers of each cell on the route, from `first` on, into rows (steps, row_size), then zeros."""
    o_source = _start(strides, tensor, i, head, route, first)
    cell_stride, stride = strides[tensor, 3], strides[tensor, 4]
    if stride == 1 and count == row_size and count % LANES == 0:
        for t in range(steps):
            at = o_source + order[o_order + t] * cell_stride
            for j in range(0, count, LANES):
                store(rows, t * row_size + j, load(source, at + j))
    else:
        for j in range(row_size):
            for t in range(steps):
                at = o_source + order[o_order + t] * cell_stride + j * stride
                rows[t * row_size + j] = source[at] if j < count else ZERO


@helper
def scatter(rows, row_size, steps, order, o_order, target, strides, tensor, i, head, route, first, count):
    """The reverse of `gather`."""
    o_target = _start(strides, tensor, i, head, route, first)
    cell_stride, stride = strides[tensor, 3], strides[tensor, 4]
    if stride == 1 and count % LANES == 0:
        for t in range(steps):
            at = o_target + order[o_order + t] * cell_stride
            for j in range(0, count, LANES):
                store(target, at + j, load(rows, t * row_size + j))
    else:
        for j in range(count):
            for t in range(steps):
                target[o_target + order[o_order + t] * cell_stride + j * stride] = rows[t * row_size + j]


@helper
def numbers(count):
    return np.empty(count, np.float32)


@helper
def copy(source, o_source, size, target, o_target):
    for i in range(0, size, LANES):
        store(target, o_target + i, load(source, o_source + i))


@helper
def add(source, size, target):
    for i in range(0, size, LANES):
        store(target, i, load(target, i) + load(source, i))


@helper
def fill(value, size, target):
    for i in range(size):
        target[i] = value


@helper
def read_block(source, o_source, width, size, scale, block, o_block):
    """source (width, size) -> block (size, LANES), times `scale`; lanes without a channel are 0."""
    for i in range(size):
        for c in range(LANES):
            block[o_block + i * LANES + c] = source[o_source + c * size + i] * scale if c < width else ZERO


@helper
def write_block(block, o_block, width, size, target, o_target):
    for i in range(size):
        for c in range(width):
            target[o_target + c * size + i] = block[o_block + i * LANES + c]


@helper
def read_parameters(bias, D, weight, row, width, r, offsets, direct, weights):
    """bias, D (channels) and weight (channels, r) from channel `row` on, as blocks."""
    read_block(bias, row, width, 1, ONE, offsets, 0)
    read_block(D, row, width, 1, ONE, direct, 0)
    read_block(weight, row * r, width, r, ONE, weights, 0)


@helper
def write_parameters(block, o_block, width, r, row, bias, D, weight):
    """The reverse of `read_parameters`, from the rows of weight, bias and D of one block."""
    write_block(block, o_block, width, r, weight, row * r)
    write_block(block, o_block + r * LANES, width, 1, bias, row)
    write_block(block, o_block + (r + 1) * LANES, width, 1, D, row)


@helper
def finish_deltas(delta, bias, weight, projected, r, steps, use_softplus):
    """delta (steps, LANES) with bias and softplus: from itself, or from r projected numbers of each step."""
    for t in range(steps):
        delta_t = load(bias, 0)
        if r == 0:
            delta_t = delta_t + load(delta, t * LANES)
        for j in range(r):
            delta_t = fused(splat(projected[t * r + j]), load(weight, j * LANES), delta_t)
        store(delta, t * LANES, softplus(delta_t) if use_softplus else delta_t)


@helper
def advance(delta, u, A, B, C, state, o_block, y, steps, n, states, decays):
    """Scan a tile: `state` moves to its end. Unless `states` is empty, states and decays are written."""
    keep = len(states) > 0
    if keep:
        copy(state, o_block, n * LANES, states, 0)
    for t in range(steps):
        delta_t, y_t = load(delta, t * LANES), splat(ZERO)
        added = delta_t * load(u, t * LANES)
        for i in range(n):
            s = load(state, o_block + i * LANES)
            scale, rest = exp2_parts(delta_t * load(A, o_block + i * LANES))
            s = fused(rest, s, fused(scale, s, added * splat(B[t * n + i])))
            y_t = fused(s, splat(C[t * n + i]), y_t)
            store(state, o_block + i * LANES, s)
            if keep:
                store(decays, (t * n + i) * 2 * LANES, scale)
                store(decays, ((t * n + i) * 2 + 1) * LANES, rest)
                store(states, ((t + 1) * n + i) * LANES, s)
        store(y, t * LANES, y_t)


@helper
def retreat(
    delta, u, A, B, C, states, decays, grad_y, steps, n, grad_state, grad_A, o_block, grad_B, grad_C, grad_delta, grad_u
):  # fmt: skip
    """Backward of `advance`: `grad_state` moves to the start of the tile; grad_A, grad_B and grad_C accumulate."""
    for t in range(steps - 1, -1, -1):
        delta_t, u_t, grad_y_t = load(delta, t * LANES), load(u, t * LANES), load(grad_y, t * LANES)
        added = delta_t * u_t
        grad_added, grad_exponent = splat(ZERO), splat(ZERO)
        for i in range(n):
            at = (t * n + i) * LANES
            grad_s = fused(grad_y_t, splat(C[t * n + i]), load(grad_state, o_block + i * LANES))
            grad_C[t * n + i] += total(grad_y_t * load(states, at + n * LANES))
            grad_B[t * n + i] += total(grad_s * added)
            grad_added = fused(grad_s, splat(B[t * n + i]), grad_added)
            grad_before = fused(load(decays, 2 * at + LANES), grad_s, load(decays, 2 * at) * grad_s)
            store(grad_state, o_block + i * LANES, grad_before)
            grad_power = grad_before * load(states, at)
            grad_exponent = fused(grad_power, load(A, o_block + i * LANES), grad_exponent)
            store(grad_A, o_block + i * LANES, fused(grad_power, delta_t, load(grad_A, o_block + i * LANES)))
        # A holds A * log2(e).
        store(grad_delta, t * LANES, fused(grad_exponent, splat(LN2), grad_added * u_t))
        store(grad_u, t * LANES, grad_added * delta_t)


@helper
def skip_and_gate(y, u, z, D, steps, use_gate):
    """Add D * u to y (steps, LANES) and multiply it by the gate, in place."""
    for at in range(0, steps * LANES, LANES):
        y_t = fused(load(D, 0), load(u, at), load(y, at))
        if use_gate:
            y_t = y_t * load(z, at) * sigmoid(load(z, at))
        store(y, at, y_t)


@helper
def gate_gradients(y, u, z, D, steps, grad_y, grad_z):
    """Backward of the gate: write grad_z, and turn grad_y into the gradient before the gate."""
    for at in range(0, steps * LANES, LANES):
        z_t, gated = load(z, at), load(grad_y, at)
        gate = sigmoid(z_t)
        derivative = fused(z_t * gate, splat(ONE) - gate, gate)
        store(grad_z, at, gated * fused(load(D, 0), load(u, at), load(y, at)) * derivative)
        store(grad_y, at, gated * z_t * gate)


@helper
def delta_gradients(
    delta, u, D, weight, projected, r, steps, use_softplus, grad_y, grad_delta, grad_u,
    grad_parameters, o_parameters, grad_projected,
):  # fmt: skip
    """Backward of D * u and of `finish_deltas`: add to grad_u, and turn grad_delta into the gradient before softplus.

    The gradients of the parameters (weight, bias, D; a row each) and of `projected` accumulate.
    """
    grad_direct, grad_bias = splat(ZERO), splat(ZERO)
    for t in range(steps):
        at = t * LANES
        grad_y_t = load(grad_y, at)
        grad_direct = fused(grad_y_t, load(u, at), grad_direct)
        store(grad_u, at, fused(grad_y_t, load(D, 0), load(grad_u, at)))
        grad_raw = load(grad_delta, at)
        if use_softplus:
            # The derivative of softplus: sigmoid(x) = 1 - e^-softplus(x).
            grad_raw = grad_raw * (splat(ZERO) - exp2m1(splat(-LOG2E) * load(delta, at)))
        store(grad_delta, at, grad_raw)
        grad_bias = grad_bias + grad_raw
        for j in range(r):
            grad_projected[t * r + j] += total(grad_raw * load(weight, j * LANES))
            at = o_parameters + j * LANES
            so_far = fused(grad_raw, splat(projected[t * r + j]), load(grad_parameters, at))
            store(grad_parameters, at, so_far)
    at = o_parameters + r * LANES
    store(grad_parameters, at, load(grad_parameters, at) + grad_bias)
    store(grad_parameters, at + LANES, load(grad_parameters, at + LANES) + grad_direct)
