"""The kernels of the scan, forward and backward, on plain sequences and along routes alike.

A scan has m heads (groups of channels of a plain sequence) of d channels and k routes a head (1). Big tensors come as
flat arrays, each with a row of the table `strides`: those of (batch, head, route, cell, last axis), so that any layout
is read where it lies. On step t of a route stands the cell `order[t]`. Forward, a unit of work is one route of up to
`PART` channels; backward, all routes of them, as they share the gradient of u. A kernel takes the units `first` to
`last` - 1, so that threads share them without ever writing to the same place.

The forward pass notes the state before each tile if asked; from it the backward pass computes a tile's states again.

b batch, m heads, k routes, l cells, d channels of a head, n state size, r rank of the step size (0: it is given).
"""

from mhsvm.ops.cpu.lanes import LOG2E, ONE, ZERO, helper
from mhsvm.ops.cpu.layout import BLOCKS, LANES, PART, TILE
from mhsvm.ops.cpu.tiles import (
    add,
    advance,
    copy,
    fill,
    gate_gradients,
    gather,
    numbers,
    read_block,
    retreat,
    scatter,
    skip_and_gate,
    step_gradients,
    step_sizes,
    write_block,
)  # fmt: skip

# Rows of the table of strides.
U, DELTA, PROJECTED, B_, C_, Z, Y, ORDER, GRAD_U, GRAD_DELTA, GRAD_Z, GRAD_PROJECTED, GRAD_B = range(13)


@helper
def _start(strides, tensor, i, head, route):
    """Where one route begins in a flat tensor."""
    return i * strides[tensor, 0] + head * strides[tensor, 1] + route * strides[tensor, 2]


def scan_forward(
    u, delta, projected, B, C, z, y, strides, order, weight, bias, A, D, last_state, starts,
    b, m, k, length, d, n, r, use_softplus, use_gate, first, last,
):  # fmt: skip
    """Writes y, last_state and, where it has room, starts.

    Strided: u, delta (if r = 0), projected (if not), B, C, z (if gated), y, order. Contiguous: weight (m, k, d, r),
    bias, D (m, k, d), A (m, k, d, n), last_state (b, m, k, d, n), starts (b, m, k, part, tile, block, n, lane).
    """
    parts, tiles, size, wide = -(-d // PART), -(-length // TILE), n * LANES, TILE * LANES
    rates, state = numbers(BLOCKS * size), numbers(BLOCKS * size)
    weights, offsets, direct = numbers(r * LANES), numbers(LANES), numbers(LANES)
    steps, values, gates, outputs = numbers(wide), numbers(wide), numbers(wide), numbers(wide)
    B_rows, C_rows, rows, nothing = numbers(TILE * n), numbers(TILE * n), numbers(TILE * r), numbers(0)
    for unit in range(first, last):
        i, head, route = unit // (m * k * parts), unit // (k * parts) % m, unit // parts % k
        c_first, channels = unit % parts * PART, (head * k + route) * d
        blocks = -(-min(PART, d - c_first) // LANES)
        fill(ZERO, BLOCKS * size, state)
        for block in range(blocks):
            c = c_first + block * LANES
            read_block(A, (channels + c) * n, d - c, n, LOG2E, rates, block * size)
        for tile in range(tiles):
            count = min(TILE, length - tile * TILE)
            at = _start(strides, ORDER, i, head, route) + tile * TILE
            gather(B, _start(strides, B_, i, head, route), strides, B_, order, at, count, n, n, B_rows)
            gather(C, _start(strides, C_, i, head, route), strides, C_, order, at, count, n, n, C_rows)
            if r > 0:
                o_rows = _start(strides, PROJECTED, i, head, route)
                gather(projected, o_rows, strides, PROJECTED, order, at, count, r, r, rows)
            for block in range(blocks):
                c = c_first + block * LANES
                width = min(LANES, d - c)
                if len(starts) > 0:
                    copy(state, block * size, size, starts, ((unit * tiles + tile) * BLOCKS + block) * size)
                read_block(bias, channels + c, width, 1, ONE, offsets, 0)
                read_block(D, channels + c, width, 1, ONE, direct, 0)
                read_block(weight, (channels + c) * r, width, r, ONE, weights, 0)
                o_u = _start(strides, U, i, head, route) + c * strides[U, 4]
                gather(u, o_u, strides, U, order, at, count, width, LANES, values)
                if r == 0:
                    o_delta = _start(strides, DELTA, i, head, route) + c * strides[DELTA, 4]
                    gather(delta, o_delta, strides, DELTA, order, at, count, width, LANES, steps)
                if use_gate:
                    o_z = _start(strides, Z, i, head, route) + c * strides[Z, 4]
                    gather(z, o_z, strides, Z, order, at, count, width, LANES, gates)
                step_sizes(steps, offsets, weights, rows, r, count, use_softplus)
                advance(
                    steps, values, rates, B_rows, C_rows, state, block * size, outputs, count, n, nothing, nothing
                )  # fmt: skip
                skip_and_gate(outputs, values, gates, direct, count, use_gate)
                o_y = _start(strides, Y, i, head, route) + c * strides[Y, 4]
                scatter(outputs, LANES, width, count, order, at, strides, Y, y, o_y)
        for block in range(blocks):
            c = c_first + block * LANES
            o_state = (i * m * k * d + channels + c) * n
            write_block(state, block * size, min(LANES, d - c), n, last_state, o_state)


def scan_backward(
    u, delta, projected, B, C, z, grad_y, strides, order, weight, bias, A, D, grad_last_state, starts,
    grad_u, grad_delta, grad_projected, grad_B, grad_C, grad_z, grad_weight, grad_bias, grad_A, grad_D,
    b, m, k, length, d, n, r, use_softplus, use_gate, first, last,
):  # fmt: skip
    """Writes every gradient: of projected, B and C by part (in front), of weight, bias, A and D by sample.

    The rest as in `scan_forward`.
    """
    parts, tiles, size, wide = -(-d // PART), -(-length // TILE), n * LANES, TILE * LANES
    rates, state = numbers(BLOCKS * size), numbers(BLOCKS * size)
    grad_state, grad_rates = numbers(BLOCKS * size), numbers(BLOCKS * size)
    weights, offsets, direct = numbers(r * LANES), numbers(LANES), numbers(LANES)
    grad_weights, grad_offsets = numbers(BLOCKS * r * LANES), numbers(BLOCKS * LANES)
    grad_direct = numbers(BLOCKS * LANES)
    steps, values, gates, outputs = numbers(wide), numbers(wide), numbers(wide), numbers(wide)
    seeds, grad_steps, grad_values, grad_gates = numbers(wide), numbers(wide), numbers(wide), numbers(wide)
    sums = numbers(wide)
    B_rows, C_rows, rows = numbers(TILE * n), numbers(TILE * n), numbers(TILE * r)
    grad_B_rows, grad_C_rows, grad_rows = numbers(TILE * n), numbers(TILE * n), numbers(TILE * r)
    states, growth = numbers((TILE + 1) * size), numbers(TILE * size)
    for unit in range(first, last):
        i, head, part = unit // (m * parts), unit // parts % m, unit % parts
        c_first = part * PART
        blocks = -(-min(PART, d - c_first) // LANES)
        for route in range(k):
            channels, sequence = (head * k + route) * d, ((i * m + head) * k + route) * parts + part
            fill(ZERO, BLOCKS * size, grad_rates)
            fill(ZERO, BLOCKS * r * LANES, grad_weights)
            fill(ZERO, BLOCKS * LANES, grad_offsets)
            fill(ZERO, BLOCKS * LANES, grad_direct)
            for block in range(blocks):
                c = c_first + block * LANES
                read_block(A, (channels + c) * n, d - c, n, LOG2E, rates, block * size)
                o_state = (i * m * k * d + channels + c) * n
                read_block(grad_last_state, o_state, d - c, n, ONE, grad_state, block * size)
            for tile in range(tiles - 1, -1, -1):
                count = min(TILE, length - tile * TILE)
                at = _start(strides, ORDER, i, head, route) + tile * TILE
                gather(B, _start(strides, B_, i, head, route), strides, B_, order, at, count, n, n, B_rows)
                gather(C, _start(strides, C_, i, head, route), strides, C_, order, at, count, n, n, C_rows)
                if r > 0:
                    o_rows = _start(strides, PROJECTED, i, head, route)
                    gather(projected, o_rows, strides, PROJECTED, order, at, count, r, r, rows)
                fill(ZERO, count * n, grad_B_rows)
                fill(ZERO, count * n, grad_C_rows)
                fill(ZERO, count * r, grad_rows)
                for block in range(blocks):
                    c = c_first + block * LANES
                    width = min(LANES, d - c)
                    copy(starts, ((sequence * tiles + tile) * BLOCKS + block) * size, size, state, block * size)
                    read_block(bias, channels + c, width, 1, ONE, offsets, 0)
                    read_block(D, channels + c, width, 1, ONE, direct, 0)
                    read_block(weight, (channels + c) * r, width, r, ONE, weights, 0)
                    o_u = _start(strides, U, i, head, route) + c * strides[U, 4]
                    gather(u, o_u, strides, U, order, at, count, width, LANES, values)
                    o_y = _start(strides, Y, i, head, route) + c * strides[Y, 4]
                    gather(grad_y, o_y, strides, Y, order, at, count, width, LANES, seeds)
                    if r == 0:
                        o_delta = _start(strides, DELTA, i, head, route) + c * strides[DELTA, 4]
                        gather(delta, o_delta, strides, DELTA, order, at, count, width, LANES, steps)
                    step_sizes(steps, offsets, weights, rows, r, count, use_softplus)
                    advance(
                        steps, values, rates, B_rows, C_rows, state, block * size, outputs, count, n, states, growth
                    )  # fmt: skip
                    if use_gate:
                        o_z = _start(strides, Z, i, head, route) + c * strides[Z, 4]
                        gather(z, o_z, strides, Z, order, at, count, width, LANES, gates)
                        gate_gradients(outputs, values, gates, direct, count, seeds, grad_gates)
                        o_z = _start(strides, GRAD_Z, i, head, route) + c * strides[GRAD_Z, 4]
                        scatter(grad_gates, LANES, width, count, order, at, strides, GRAD_Z, grad_z, o_z)
                    retreat(
                        steps, values, rates, B_rows, C_rows, states, growth, seeds, count, n,
                        grad_state, grad_rates, block * size, grad_B_rows, grad_C_rows, grad_steps, grad_values,
                    )  # fmt: skip
                    step_gradients(
                        steps, values, direct, weights, rows, r, count, use_softplus, seeds, grad_steps, grad_values,
                        grad_direct, grad_offsets, grad_weights, block, grad_rows,
                    )  # fmt: skip
                    o_u = _start(strides, GRAD_U, i, head, route) + c * strides[GRAD_U, 4]
                    if route > 0:
                        gather(grad_u, o_u, strides, GRAD_U, order, at, count, width, LANES, sums)
                        add(sums, count * LANES, grad_values)
                    scatter(grad_values, LANES, width, count, order, at, strides, GRAD_U, grad_u, o_u)
                    if r == 0:
                        o_delta = _start(strides, GRAD_DELTA, i, head, route) + c * strides[GRAD_DELTA, 4]
                        scatter(grad_steps, LANES, width, count, order, at, strides, GRAD_DELTA, grad_delta, o_delta)
                o_rows = _start(strides, GRAD_B, i, head, route) + part * b * length * m * k * n
                scatter(grad_B_rows, n, n, count, order, at, strides, GRAD_B, grad_B, o_rows)
                scatter(grad_C_rows, n, n, count, order, at, strides, GRAD_B, grad_C, o_rows)
                if r > 0:
                    o_rows = _start(strides, GRAD_PROJECTED, i, head, route) + part * b * length * m * k * r
                    scatter(grad_rows, r, r, count, order, at, strides, GRAD_PROJECTED, grad_projected, o_rows)
            for block in range(blocks):
                c = c_first + block * LANES
                width, row = min(LANES, d - c), i * m * k * d + channels + c
                write_block(grad_rates, block * size, width, n, grad_A, row * n)
                write_block(grad_weights, block * r * LANES, width, r, grad_weight, row * r)
                write_block(grad_offsets, block * LANES, width, 1, grad_bias, row)
                write_block(grad_direct, block * LANES, width, 1, grad_D, row)
