"""CPU kernels of the scan, forward and backward, for sequences and for routes of a map.

A scan has m heads of d channels and k routes a head; a sequence of g groups has g heads of one route. Big tensors come
as flat arrays, each with a row of the table `strides`: of (sample, head, route, cell, last axis), so that any memory
order is read in place. Step t of a route is the cell `order[t]`. In the forward pass a unit of work is one route of up
to `SPLIT` channels. In the backward pass it is all routes of these channels, since they add to the same gradient of u.
Each thread runs the whole kernel, which takes units from the counter `taken` until all are; threads never write to the
same place.

For the backward pass, the forward pass saves the state before each tile, from which the states of the tile are computed
again. Letters are those of `mhsvm.ops`; r is 0 if delta is given instead of its projection.
"""

from mhsvm.ops.scan.cpu.lanes import LOG2E, ONE, ZERO, take
from mhsvm.ops.scan.cpu.layout import BLOCKS, LANES, SPLIT, TILE
from mhsvm.ops.scan.cpu.tiles import (
    add,
    advance,
    copy,
    delta_gradients,
    fill,
    finish_deltas,
    gate_gradients,
    gather,
    numbers,
    read_block,
    read_parameters,
    retreat,
    scatter,
    skip_and_gate,
    write_block,
    write_parameters,
)

# Rows of the table of strides.
U, DELTA, PROJECTED, B_, C_, Z, Y, ORDER, G_U, G_DELTA, G_Z, G_PROJECTED, G_B = range(13)


def selective_scan_fwd_cpu_kernel(
    u, delta, projected, B, C, z, y, strides, order, weight, bias, A, D, last_state, starts,
    b, m, k, length, d, n, r, use_softplus, use_gate, units, taken,
):  # fmt: skip
    """Write y, last_state and, unless it is empty, starts.

    Strided: u, delta (if r = 0), projected (if r > 0), B, C, z (if use_gate), y, order. Contiguous: weight
    (m, k, d, r), bias, D (m, k, d), A (m, k, d, n), last_state (b, m, k, d, n), starts (b, m, k, split, tile, block,
    n, lane).
    """
    splits, tiles, size, wide = -(-d // SPLIT), -(-length // TILE), n * LANES, TILE * LANES
    rates, state = numbers(BLOCKS * size), numbers(BLOCKS * size)
    weights, offsets, direct = numbers(r * LANES), numbers(LANES), numbers(LANES)
    deltas, values, gates, outputs = numbers(wide), numbers(wide), numbers(wide), numbers(wide)
    B_rows, C_rows, rows, nothing = numbers(TILE * n), numbers(TILE * n), numbers(TILE * r), numbers(0)
    unit = take(taken)
    while unit < units:
        i, head, route, split = unit // (m * k * splits), unit // (k * splits) % m, unit // splits % k, unit % splits
        channels = (head * k + route) * d
        blocks = -(-min(SPLIT, d - split * SPLIT) // LANES)
        fill(ZERO, BLOCKS * size, state)
        for block in range(blocks):
            c = split * SPLIT + block * LANES
            read_block(A, (channels + c) * n, d - c, n, LOG2E, rates, block * size)
        for tile in range(tiles):
            steps = min(TILE, length - tile * TILE)
            at = i * strides[ORDER, 0] + head * strides[ORDER, 1] + route * strides[ORDER, 2] + tile * TILE
            gather(B, strides, B_, i, head, route, 0, n, order, at, steps, n, B_rows)
            gather(C, strides, C_, i, head, route, 0, n, order, at, steps, n, C_rows)
            gather(projected, strides, PROJECTED, i, head, route, 0, r, order, at, steps, r, rows)
            for block in range(blocks):
                c = split * SPLIT + block * LANES
                width = min(LANES, d - c)
                if len(starts) > 0:
                    copy(state, block * size, size, starts, ((unit * tiles + tile) * BLOCKS + block) * size)
                read_parameters(bias, D, weight, channels + c, width, r, offsets, direct, weights)
                gather(u, strides, U, i, head, route, c, width, order, at, steps, LANES, values)
                if r == 0:
                    gather(delta, strides, DELTA, i, head, route, c, width, order, at, steps, LANES, deltas)
                if use_gate:
                    gather(z, strides, Z, i, head, route, c, width, order, at, steps, LANES, gates)
                finish_deltas(deltas, offsets, weights, rows, r, steps, use_softplus)
                advance(deltas, values, rates, B_rows, C_rows, state, block * size, outputs, steps, n, nothing, nothing)
                skip_and_gate(outputs, values, gates, direct, steps, use_gate)
                scatter(outputs, LANES, steps, order, at, y, strides, Y, i, head, route, c, width)
        for block in range(blocks):
            c = split * SPLIT + block * LANES
            write_block(state, block * size, min(LANES, d - c), n, last_state, (i * m * k * d + channels + c) * n)
        unit = take(taken)


def selective_scan_bwd_cpu_kernel(
    u, delta, projected, B, C, z, grad_y, strides, order, weight, bias, A, D, grad_last_state, starts,
    grad_u, grad_delta, grad_projected, grad_B, grad_C, grad_z, grad_weight, grad_bias, grad_A, grad_D,
    b, m, k, length, d, n, r, use_softplus, use_gate, units, taken,
):  # fmt: skip
    """Write every gradient: of projected, B and C for each split (first axis), of the parameters for each sample.

    The other arguments are those of `selective_scan_fwd_cpu_kernel`.
    """
    splits, tiles, size, wide = -(-d // SPLIT), -(-length // TILE), n * LANES, TILE * LANES
    rates, state = numbers(BLOCKS * size), numbers(BLOCKS * size)
    grad_state, grad_rates = numbers(BLOCKS * size), numbers(BLOCKS * size)
    weights, offsets, direct = numbers(r * LANES), numbers(LANES), numbers(LANES)
    grad_parameters = numbers(BLOCKS * (r + 2) * LANES)
    deltas, values, gates, outputs, grad_outputs = (
        numbers(wide),
        numbers(wide),
        numbers(wide),
        numbers(wide),
        numbers(wide),
    )
    grad_deltas, grad_values, grad_gates, others = numbers(wide), numbers(wide), numbers(wide), numbers(wide)
    B_rows, C_rows, rows = numbers(TILE * n), numbers(TILE * n), numbers(TILE * r)
    grad_B_rows, grad_C_rows, grad_rows = numbers(TILE * n), numbers(TILE * n), numbers(TILE * r)
    states, decays = numbers((TILE + 1) * size), numbers(TILE * size * 2)
    unit = take(taken)
    while unit < units:
        i, head, split = unit // (m * splits), unit // splits % m, unit % splits
        blocks = -(-min(SPLIT, d - split * SPLIT) // LANES)
        for route in range(k):
            channels, sequence = (head * k + route) * d, ((i * m + head) * k + route) * splits + split
            fill(ZERO, BLOCKS * size, grad_rates)
            fill(ZERO, BLOCKS * (r + 2) * LANES, grad_parameters)
            for block in range(blocks):
                c = split * SPLIT + block * LANES
                row = channels + c
                read_block(A, row * n, d - c, n, LOG2E, rates, block * size)
                read_block(grad_last_state, (i * m * k * d + row) * n, d - c, n, ONE, grad_state, block * size)
            for tile in range(tiles - 1, -1, -1):
                steps = min(TILE, length - tile * TILE)
                at = i * strides[ORDER, 0] + head * strides[ORDER, 1] + route * strides[ORDER, 2] + tile * TILE
                gather(B, strides, B_, i, head, route, 0, n, order, at, steps, n, B_rows)
                gather(C, strides, C_, i, head, route, 0, n, order, at, steps, n, C_rows)
                gather(projected, strides, PROJECTED, i, head, route, 0, r, order, at, steps, r, rows)
                fill(ZERO, steps * n, grad_B_rows)
                fill(ZERO, steps * n, grad_C_rows)
                fill(ZERO, steps * r, grad_rows)
                for block in range(blocks):
                    c = split * SPLIT + block * LANES
                    width = min(LANES, d - c)
                    copy(starts, ((sequence * tiles + tile) * BLOCKS + block) * size, size, state, block * size)
                    read_parameters(bias, D, weight, channels + c, width, r, offsets, direct, weights)
                    gather(u, strides, U, i, head, route, c, width, order, at, steps, LANES, values)
                    gather(grad_y, strides, Y, i, head, route, c, width, order, at, steps, LANES, grad_outputs)
                    if r == 0:
                        gather(delta, strides, DELTA, i, head, route, c, width, order, at, steps, LANES, deltas)
                    finish_deltas(deltas, offsets, weights, rows, r, steps, use_softplus)
                    advance(
                        deltas, values, rates, B_rows, C_rows, state, block * size, outputs, steps, n, states, decays
                    )
                    if use_gate:
                        gather(z, strides, Z, i, head, route, c, width, order, at, steps, LANES, gates)
                        gate_gradients(outputs, values, gates, direct, steps, grad_outputs, grad_gates)
                        scatter(grad_gates, LANES, steps, order, at, grad_z, strides, G_Z, i, head, route, c, width)
                    retreat(
                        deltas, values, rates, B_rows, C_rows, states, decays, grad_outputs, steps, n,
                        grad_state, grad_rates, block * size, grad_B_rows, grad_C_rows, grad_deltas, grad_values,
                    )  # fmt: skip
                    delta_gradients(
                        deltas, values, direct, weights, rows, r, steps, use_softplus, grad_outputs, grad_deltas,
                        grad_values, grad_parameters, block * (r + 2) * LANES, grad_rows,
                    )  # fmt: skip
                    if route > 0:
                        gather(grad_u, strides, G_U, i, head, route, c, width, order, at, steps, LANES, others)
                        add(others, steps * LANES, grad_values)
                    scatter(grad_values, LANES, steps, order, at, grad_u, strides, G_U, i, head, route, c, width)
                    if r == 0:
                        scatter(
                            grad_deltas, LANES, steps, order, at, grad_delta, strides, G_DELTA, i, head, route, c, width
                        )
                o_split = split * b * length * m * k
                scatter(grad_B_rows, n, steps, order, at, grad_B, strides, G_B, i, head, route, o_split * n, n)
                scatter(grad_C_rows, n, steps, order, at, grad_C, strides, G_B, i, head, route, o_split * n, n)
                scatter(
                    grad_rows, r, steps, order, at, grad_projected, strides, G_PROJECTED, i, head, route, o_split * r, r
                )
            for block in range(blocks):
                c = split * SPLIT + block * LANES
                width, row = min(LANES, d - c), i * m * k * d + channels + c
                write_block(grad_rates, block * size, width, n, grad_A, row * n)
                o_parameters = block * (r + 2) * LANES
                write_parameters(grad_parameters, o_parameters, width, r, row, grad_bias, grad_D, grad_weight)
        unit = take(taken)
