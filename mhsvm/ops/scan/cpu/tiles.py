"""What the kernels of the scan do with one tile: up to `TILE` steps of a block of channels, a channel a lane.

A decay is kept as 2^i + rest, with a rest that is exact relative to itself. Where the decay is near 1 its distance from
1 keeps all its digits, and thousands of steps do not add up rounding errors; a tiny one is as exact as float32 is.

n state size, r rank of the step size (0: it is given). Offsets into flat arrays are named o_. What belongs to steps is
a flat tile, (steps, LANES), (steps, n) or (steps, r); what belongs to channels a flat block, (LANES), (n, LANES) or
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
    """Where in a flat tensor one route's rows begin, from the number `first` of a row on."""
    place = i * strides[tensor, 0] + head * strides[tensor, 1] + route * strides[tensor, 2]
    return place + first * strides[tensor, 4]


@helper
def gather(source, strides, tensor, i, head, route, first, count, order, o_order, steps, row_size, rows):
    """Of each cell on the route the numbers `first` and on, `count` of them, then zeros: rows (steps, row_size)."""
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
def step_sizes(dt, bias, weight, projected, r, steps, use_softplus):
    """dt (steps, LANES): from itself, or from the r projected numbers of a step if there are any."""
    for t in range(steps):
        step = load(bias, 0)
        if r == 0:
            step = step + load(dt, t * LANES)
        for j in range(r):
            step = fused(splat(projected[t * r + j]), load(weight, j * LANES), step)
        store(dt, t * LANES, softplus(step) if use_softplus else step)


@helper
def advance(dt, u, A, B, C, state, o_block, y, steps, n, states, decays):
    """Scan a tile: `state` moves to its end. Where `states` has room, states and decays are noted."""
    note = len(states) > 0
    if note:
        copy(state, o_block, n * LANES, states, 0)
    for t in range(steps):
        dt_t, y_t = load(dt, t * LANES), splat(ZERO)
        added = dt_t * load(u, t * LANES)
        for i in range(n):
            s = load(state, o_block + i * LANES)
            scale, rest = exp2_parts(dt_t * load(A, o_block + i * LANES))
            s = fused(rest, s, fused(scale, s, added * splat(B[t * n + i])))
            y_t = fused(s, splat(C[t * n + i]), y_t)
            store(state, o_block + i * LANES, s)
            if note:
                store(decays, (t * n + i) * 2 * LANES, scale)
                store(decays, ((t * n + i) * 2 + 1) * LANES, rest)
                store(states, ((t + 1) * n + i) * LANES, s)
        store(y, t * LANES, y_t)


@helper
def retreat(
    dt, u, A, B, C, states, decays, grad_y, steps, n, grad_state, grad_A, o_block, grad_B, grad_C, grad_dt, grad_u
):  # fmt: skip
    """The reverse of `advance`: `grad_state` moves to the tile's beginning, grad_A, grad_B and grad_C are added to."""
    for t in range(steps - 1, -1, -1):
        dt_t, u_t, grad_y_t = load(dt, t * LANES), load(u, t * LANES), load(grad_y, t * LANES)
        added = dt_t * u_t
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
            store(grad_A, o_block + i * LANES, fused(grad_power, dt_t, load(grad_A, o_block + i * LANES)))
        # A holds A * log2(e).
        store(grad_dt, t * LANES, fused(grad_exponent, splat(LN2), grad_added * u_t))
        store(grad_u, t * LANES, grad_added * dt_t)


@helper
def skip_and_gate(y, u, z, D, steps, use_gate):
    """y (steps, LANES), in place: what stands behind the scan."""
    for at in range(0, steps * LANES, LANES):
        y_t = fused(load(D, 0), load(u, at), load(y, at))
        if use_gate:
            y_t = y_t * load(z, at) * sigmoid(load(z, at))
        store(y, at, y_t)


@helper
def gate_gradients(y, u, z, D, steps, grad_y, grad_z):
    """Through the gate: grad_y becomes that of what stood before it, and grad_z is written."""
    for at in range(0, steps * LANES, LANES):
        z_t, gated = load(z, at), load(grad_y, at)
        share = sigmoid(z_t)
        slope = fused(z_t * share, splat(ONE) - share, share)
        store(grad_z, at, gated * fused(load(D, 0), load(u, at), load(y, at)) * slope)
        store(grad_y, at, gated * z_t * share)


@helper
def step_gradients(
    dt, u, D, weight, projected, r, steps, use_softplus, grad_y, grad_dt, grad_u,
    grad_parameters, o_parameters, grad_projected,
):  # fmt: skip
    """Through direct path and step size: grad_u gets its share, grad_dt becomes that of what stood before softplus.

    Those of the parameters (weight, bias, D; a row each) and of `projected` are added to.
    """
    grad_direct, grad_offset = splat(ZERO), splat(ZERO)
    for t in range(steps):
        at = t * LANES
        grad_y_t = load(grad_y, at)
        grad_direct = fused(grad_y_t, load(u, at), grad_direct)
        store(grad_u, at, fused(grad_y_t, load(D, 0), load(grad_u, at)))
        grad_step = load(grad_dt, at)
        if use_softplus:
            # Its slope sigmoid(x) = 1 - e^-softplus(x).
            grad_step = grad_step * (splat(ZERO) - exp2m1(splat(-LOG2E) * load(dt, at)))
        store(grad_dt, at, grad_step)
        grad_offset = grad_offset + grad_step
        for j in range(r):
            grad_projected[t * r + j] += total(grad_step * load(weight, j * LANES))
            at = o_parameters + j * LANES
            so_far = fused(grad_step, splat(projected[t * r + j]), load(grad_parameters, at))
            store(grad_parameters, at, so_far)
    at = o_parameters + r * LANES
    store(grad_parameters, at, load(grad_parameters, at) + grad_offset)
    store(grad_parameters, at + LANES, load(grad_parameters, at + LANES) + grad_direct)
