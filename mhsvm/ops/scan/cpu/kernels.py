"""The kernels of the scan, forward and backward, on plain sequences and along routes alike.

A scan has m heads (groups of channels of a plain sequence) of d channels and k routes a head (1). Big tensors come as
flat arrays, each with a row of the table `strides`: those of (batch, head, route, cell, last axis), so that any layout
is read where it lies. On step t of a route stands the cell `order[t]`. Forward, a unit of work is one route of up to
`PART` channels; backward, all routes of them, as they share the gradient of u. A kernel takes the units `first` to
`last` - 1, so that threads share them without ever writing to the same place.

The forward pass notes the state before each tile if asked; from it the backward pass computes a tile's states again.

b batch, m heads, k routes, l cells, d channels of a head, n state size, r rank of the step size (0: it is given).
"""

from mhsvm.ops.scan.cpu.lanes import LOG2E, ONE, ZERO
from mhsvm.ops.scan.cpu.layout import BLOCKS, LANES, PART, TILE
from mhsvm.ops.scan.cpu.tiles import (
    add,
    advance,
    copy,
    fill,
    gate_gradients,
    gather,
    numbers,
    read_block,
    read_parameters,
    retreat,
    scatter,
    skip_and_gate,
    step_gradients,
    step_sizes,
    write_block,
    write_parameters,
)

# Rows of the table of strides.
U, DELTA, PROJ, B_, C_, Z, Y, ORDER, G_U, G_DT, G_Z, G_PROJ, G_B = range(13)


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
    dt, values, gates, outputs = numbers(wide), numbers(wide), numbers(wide), numbers(wide)
    B_rows, C_rows, rows, nothing = numbers(TILE * n), numbers(TILE * n), numbers(TILE * r), numbers(0)
    for unit in range(first, last):
        i, head, route, part = unit // (m * k * parts), unit // (k * parts) % m, unit // parts % k, unit % parts
        channels = (head * k + route) * d
        blocks = -(-min(PART, d - part * PART) // LANES)
        fill(ZERO, BLOCKS * size, state)
        for block in range(blocks):
            c = part * PART + block * LANES
            read_block(A, (channels + c) * n, d - c, n, LOG2E, rates, block * size)
        for tile in range(tiles):
            steps = min(TILE, length - tile * TILE)
            at = i * strides[ORDER, 0] + head * strides[ORDER, 1] + route * strides[ORDER, 2] + tile * TILE
            gather(B, strides, B_, i, head, route, 0, n, order, at, steps, n, B_rows)
            gather(C, strides, C_, i, head, route, 0, n, order, at, steps, n, C_rows)
            gather(projected, strides, PROJ, i, head, route, 0, r, order, at, steps, r, rows)
            for block in range(blocks):
                c = part * PART + block * LANES
                width = min(LANES, d - c)
                if len(starts) > 0:
                    copy(state, block * size, size, starts, ((unit * tiles + tile) * BLOCKS + block) * size)
                read_parameters(bias, D, weight, channels + c, width, r, offsets, direct, weights)
                gather(u, strides, U, i, head, route, c, width, order, at, steps, LANES, values)
                if r == 0:
                    gather(delta, strides, DELTA, i, head, route, c, width, order, at, steps, LANES, dt)
                if use_gate:
                    gather(z, strides, Z, i, head, route, c, width, order, at, steps, LANES, gates)
                step_sizes(dt, offsets, weights, rows, r, steps, use_softplus)
                advance(dt, values, rates, B_rows, C_rows, state, block * size, outputs, steps, n, nothing, nothing)
                skip_and_gate(outputs, values, gates, direct, steps, use_gate)
                scatter(outputs, LANES, steps, order, at, y, strides, Y, i, head, route, c, width)
        for block in range(blocks):
            c = part * PART + block * LANES
            write_block(state, block * size, min(LANES, d - c), n, last_state, (i * m * k * d + channels + c) * n)


def scan_backward(
    u, delta, projected, B, C, z, grad_y, strides, order, weight, bias, A, D, grad_last_state, starts,
    grad_u, grad_delta, grad_proj, grad_B, grad_C, grad_z, grad_weight, grad_bias, grad_A, grad_D,
    b, m, k, length, d, n, r, use_softplus, use_gate, first, last,
):  # fmt: skip
    """Writes every gradient: of projected, B and C by part (in front), of weight, bias, A and D by sample.

    The rest as in `scan_forward`.
    """
    parts, tiles, size, wide = -(-d // PART), -(-length // TILE), n * LANES, TILE * LANES
    rates, state = numbers(BLOCKS * size), numbers(BLOCKS * size)
    grad_state, grad_rates = numbers(BLOCKS * size), numbers(BLOCKS * size)
    weights, offsets, direct = numbers(r * LANES), numbers(LANES), numbers(LANES)
    grad_parameters = numbers(BLOCKS * (r + 2) * LANES)
    dt, values, gates, outputs, seeds = numbers(wide), numbers(wide), numbers(wide), numbers(wide), numbers(wide)
    grad_dt, grad_values, grad_gates, others = numbers(wide), numbers(wide), numbers(wide), numbers(wide)
    B_rows, C_rows, rows = numbers(TILE * n), numbers(TILE * n), numbers(TILE * r)
    grad_B_rows, grad_C_rows, grad_rows = numbers(TILE * n), numbers(TILE * n), numbers(TILE * r)
    states, decays = numbers((TILE + 1) * size), numbers(TILE * size * 2)
    for unit in range(first, last):
        i, head, part = unit // (m * parts), unit // parts % m, unit % parts
        blocks = -(-min(PART, d - part * PART) // LANES)
        for route in range(k):
            channels, sequence = (head * k + route) * d, ((i * m + head) * k + route) * parts + part
            fill(ZERO, BLOCKS * size, grad_rates)
            fill(ZERO, BLOCKS * (r + 2) * LANES, grad_parameters)
            for block in range(blocks):
                c = part * PART + block * LANES
                row = channels + c
                read_block(A, row * n, d - c, n, LOG2E, rates, block * size)
                read_block(grad_last_state, (i * m * k * d + row) * n, d - c, n, ONE, grad_state, block * size)
            for tile in range(tiles - 1, -1, -1):
                steps = min(TILE, length - tile * TILE)
                at = i * strides[ORDER, 0] + head * strides[ORDER, 1] + route * strides[ORDER, 2] + tile * TILE
                gather(B, strides, B_, i, head, route, 0, n, order, at, steps, n, B_rows)
                gather(C, strides, C_, i, head, route, 0, n, order, at, steps, n, C_rows)
                gather(projected, strides, PROJ, i, head, route, 0, r, order, at, steps, r, rows)
                fill(ZERO, steps * n, grad_B_rows)
                fill(ZERO, steps * n, grad_C_rows)
                fill(ZERO, steps * r, grad_rows)
                for block in range(blocks):
                    c = part * PART + block * LANES
                    width = min(LANES, d - c)
                    copy(starts, ((sequence * tiles + tile) * BLOCKS + block) * size, size, state, block * size)
                    read_parameters(bias, D, weight, channels + c, width, r, offsets, direct, weights)
                    gather(u, strides, U, i, head, route, c, width, order, at, steps, LANES, values)
                    gather(grad_y, strides, Y, i, head, route, c, width, order, at, steps, LANES, seeds)
                    if r == 0:
                        gather(delta, strides, DELTA, i, head, route, c, width, order, at, steps, LANES, dt)
                    step_sizes(dt, offsets, weights, rows, r, steps, use_softplus)
                    advance(dt, values, rates, B_rows, C_rows, state, block * size, outputs, steps, n, states, decays)
                    if use_gate:
                        gather(z, strides, Z, i, head, route, c, width, order, at, steps, LANES, gates)
                        gate_gradients(outputs, values, gates, direct, steps, seeds, grad_gates)
                        scatter(grad_gates, LANES, steps, order, at, grad_z, strides, G_Z, i, head, route, c, width)
                    retreat(
                        dt, values, rates, B_rows, C_rows, states, decays, seeds, steps, n,
                        grad_state, grad_rates, block * size, grad_B_rows, grad_C_rows, grad_dt, grad_values,
                    )  # fmt: skip
                    step_gradients(
                        dt, values, direct, weights, rows, r, steps, use_softplus, seeds, grad_dt, grad_values,
                        grad_parameters, block * (r + 2) * LANES, grad_rows,
                    )  # fmt: skip
                    if route > 0:
                        gather(grad_u, strides, G_U, i, head, route, c, width, order, at, steps, LANES, others)
                        add(others, steps * LANES, grad_values)
                    scatter(grad_values, LANES, steps, order, at, grad_u, strides, G_U, i, head, route, c, width)
                    if r == 0:
                        scatter(grad_dt, LANES, steps, order, at, grad_delta, strides, G_DT, i, head, route, c, width)
                o_part = part * b * length * m * k
                scatter(grad_B_rows, n, steps, order, at, grad_B, strides, G_B, i, head, route, o_part * n, n)
                scatter(grad_C_rows, n, steps, order, at, grad_C, strides, G_B, i, head, route, o_part * n, n)
                scatter(grad_rows, r, steps, order, at, grad_proj, strides, G_PROJ, i, head, route, o_part * r, r)
            for block in range(blocks):
                c = part * PART + block * LANES
                width, row = min(LANES, d - c), i * m * k * d + channels + c
                write_block(grad_rates, block * size, width, n, grad_A, row * n)
                o_parameters = block * (r + 2) * LANES
                write_parameters(grad_parameters, o_parameters, width, r, row, grad_bias, grad_D, grad_weight)
