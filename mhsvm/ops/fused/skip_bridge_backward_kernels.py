"""Backward kernels of the bridge over skip connections; tuples, tiles and gates (q) as in `skip_bridge_kernels`.

z is the input of the sigmoid over space, v that of the sigmoids of the gates.
"""

import triton
import triton.language as tl

from mhsvm.ops.common_kernels import unaligned_range
from mhsvm.ops.fused.group_norm_kernels import load_map
from mhsvm.ops.fused.skip_bridge_kernels import (
    channel_cells,
    find_tile,
    load_row,
    load_sums,
    pick,
    row_pointers,
    sum_before,
    sum_products,
)


@triton.jit
def mix_channels(p_values, p_mix, o_c, m_rows, num_channels, BACKWARD: tl.constexpr):
    """Convolution of three taps over channels, or the gradient of its input."""
    b_mixed = tl.zeros((p_values + o_c).shape, tl.float32)
    for f in tl.static_range(3):
        o_f = o_c + 1 - f if BACKWARD else o_c + f - 1
        b_f = tl.load(p_values + o_f, mask=m_rows & (o_f >= 0) & (o_f < num_channels), other=0.0)
        b_mixed += tl.load(p_mix + f).to(tl.float32) * b_f
    return b_mixed


@triton.jit(do_not_specialize=["num_tiles"])
def skip_bridge_bwd_kernel_sums(
    p_grads, p_skips, p_attention, p_sums, channels, cells, num_cells, num_channels, num_tiles,
    L: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """Gradient of the gates: each tile's sums of (1 + s) * skip * gradient, (b, s, c)."""
    i_b = tl.program_id(1).to(tl.int64)
    i_map, i_s = find_tile(cells, L)
    c, num = pick(channels, i_map), pick(cells, i_map)
    o_l = i_s * L + tl.arange(0, L)
    b_attention = tl.load(p_attention + i_b * num_cells + sum_before(cells, i_map) + o_l, mask=o_l < num, other=0.0)
    p_sums += (i_b * num_tiles + i_s) * num_channels + sum_before(channels, i_map)
    p_x, p_grad = pick(p_skips, i_map) + i_b * c * num, pick(p_grads, i_map) + i_b * c * num
    sum_products(p_x, p_grad, 1.0 + b_attention, p_sums, o_l, c, num, C)


@triton.jit(do_not_specialize=["num_tiles"])
def skip_bridge_bwd_kernel_gates(
    p_sums, p_gates, p_weights, p_grad_v, p_grad_mixed, channels, cells, num_channels, num_tiles,
    L: tl.constexpr, Q: tl.constexpr, MIXED: tl.constexpr, S: tl.constexpr,
):  # fmt: skip
    """Gradients of v and of the mixed averages, (b, c) each; a program has Q averages and reads MIXED gates a time."""
    i_b = tl.program_id(1).to(tl.int64)
    o_c = tl.program_id(0) * Q + tl.arange(0, Q)
    m_c = o_c < num_channels
    p_sums += i_b * num_tiles * num_channels
    b_grad = tl.zeros([Q], tl.float32)
    for i_q in range(0, num_channels, MIXED):
        o_q = i_q + tl.arange(0, MIXED)
        m_q = o_q < num_channels
        b_gate = tl.load(p_gates + i_b * num_channels + o_q, mask=m_q, other=0.0)
        b_cells = channel_cells(o_q, channels, cells)
        b_grad_v = load_sums(p_sums, o_q, b_cells, num_tiles, num_channels, L, S) * b_gate * (1.0 - b_gate)
        if tl.program_id(0) == 0:
            tl.store(p_grad_v + i_b * num_channels + o_q, b_grad_v, mask=m_q)
        p_rows = row_pointers(p_weights, o_q, channels, num_channels)
        b_weight = tl.load(p_rows[:, None] + o_c[None, :], mask=m_q[:, None] & m_c[None, :], other=0.0)
        b_grad += tl.sum(b_weight * b_grad_v[:, None], axis=0)
    tl.store(p_grad_mixed + i_b * num_channels + o_c, b_grad, mask=m_c)


@triton.jit
def skip_bridge_bwd_kernel_attention(
    p_grads, p_skips, p_attention, p_gates, p_grad_mixed, p_mix, p_grad_z, channels, cells, num_cells, num_channels,
    L: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """Gradient of z, (b, num_cells)."""
    i_b = tl.program_id(1).to(tl.int64)
    i_map, i_s = find_tile(cells, L)
    c, num = pick(channels, i_map), pick(cells, i_map)
    before_c, before_l = sum_before(channels, i_map), sum_before(cells, i_map)
    o_l = i_s * L + tl.arange(0, L)
    m_l = o_l < num
    p_gates += i_b * num_channels + before_c
    p_x, p_grad = pick(p_skips, i_map) + i_b * c * num, pick(p_grads, i_map) + i_b * c * num
    b_sum = tl.zeros([C, L], tl.float32)
    for i_c in range(0, c, C):
        o_c = i_c + tl.arange(0, C)
        m_c = o_c < c
        m_cl = m_c[:, None] & m_l[None, :]
        b_gate = tl.load(p_gates + o_c, mask=m_c, other=0.0)
        b_level = mix_channels(p_grad_mixed + i_b * num_channels, p_mix, before_c + o_c, m_c, num_channels, True) / num
        b_grad = load_map(p_grad, o_c, o_l, m_cl, num, 1) * (1.0 + b_gate)[:, None] + b_level[:, None]
        b_sum += load_map(p_x, o_c, o_l, m_cl, num, 1) * b_grad
    o_l += before_l
    b_attention = tl.load(p_attention + i_b * num_cells + o_l, mask=m_l, other=0.0)
    b_grad_z = tl.sum(b_sum, axis=0) * b_attention * (1.0 - b_attention)
    tl.store(p_grad_z + i_b * num_cells + o_l, b_grad_z, mask=m_l)


@triton.jit
def skip_bridge_bwd_kernel(
    p_grads, p_attention, p_greatest, p_gates, p_grad_mixed, p_mix, p_grad_z, p_spatial, p_grad_skips,
    channels, cells, widths, num_cells, num_channels,
    L: tl.constexpr, C: tl.constexpr, TAPS: tl.constexpr, DILATION: tl.constexpr,
):  # fmt: skip
    """Gradient of the maps."""
    i_b = tl.program_id(1).to(tl.int64)
    i_map, i_s = find_tile(cells, L)
    c, num, w = pick(channels, i_map), pick(cells, i_map), pick(widths, i_map)
    h = num // w
    before_c, before_l = sum_before(channels, i_map), i_b * num_cells + sum_before(cells, i_map)
    # Unaligned for the maps too: a conversion between two layouts would go through shared memory.
    o_l = i_s * L + unaligned_range(L, num)
    m_l = o_l < num
    o_y, o_x = o_l // w, o_l % w
    b_mean, b_max = tl.zeros([L], tl.float32), tl.zeros([L], tl.float32)
    for i in range(TAPS):
        # The opposite tap is at the cell whose tap (i, j) reads this one.
        b_row = load_row(p_grad_z + before_l, o_y, o_x, TAPS - 1 - i, h, w, TAPS, DILATION)
        for j in tl.static_range(TAPS):
            b_mean += tl.load(p_spatial + i * TAPS + j).to(tl.float32) * b_row[TAPS - 1 - j]
            b_max += tl.load(p_spatial + (TAPS + i) * TAPS + j).to(tl.float32) * b_row[TAPS - 1 - j]
    b_mean, b_max = (b_mean / c)[None, :], b_max[None, :]
    b_attention = tl.load(p_attention + before_l + o_l, mask=m_l, other=0.0)[None, :]
    b_greatest = tl.load(p_greatest + before_l + o_l, mask=m_l, other=0)[None, :]
    p_gates += i_b * num_channels + before_c
    p_grad, p_grad_x = pick(p_grads, i_map) + i_b * c * num, pick(p_grad_skips, i_map) + i_b * c * num
    for i_c in range(0, c, C):
        o_c = i_c + tl.arange(0, C)
        m_c = o_c < c
        m_cl = m_c[:, None] & m_l[None, :]
        b_gate = tl.load(p_gates + o_c, mask=m_c, other=0.0)[:, None]
        b_level = mix_channels(p_grad_mixed + i_b * num_channels, p_mix, before_c + o_c, m_c, num_channels, True) / num
        b_grad_x = load_map(p_grad, o_c, o_l, m_cl, num, 1) * (b_gate * (1.0 + b_attention) + b_attention)
        b_grad_x += b_level[:, None] * (1.0 + b_attention) + b_mean + tl.where(o_c[:, None] == b_greatest, b_max, 0.0)
        tl.store(p_grad_x + o_c[:, None] * num + o_l[None, :], b_grad_x.to(p_grad_x.dtype.element_ty), mask=m_cl)


@triton.jit(do_not_specialize=["batch"])
def skip_bridge_bwd_kernel_taps(
    p_grad_z, p_statistics, p_parts, cells, widths, num_cells, batch,
    L: tl.constexpr, F: tl.constexpr, TAPS: tl.constexpr, DILATION: tl.constexpr,
):  # fmt: skip
    """Partial gradients of a statistic's row of taps, over all samples, for each tile, (tiles, 2 * TAPS, F).

    The partial gradient of the bias follows the taps of a row.
    """
    i_map, i_s = find_tile(cells, L)
    num, w = pick(cells, i_map), pick(widths, i_map)
    h = num // w
    before = sum_before(cells, i_map)
    i_row = tl.program_id(1)
    o_l = i_s * L + unaligned_range(L, num)
    o_y, o_x = o_l // w, o_l % w
    p_grad_z += before
    p_statistics += i_row // TAPS * num_cells + before
    b_sums = ()
    for _ in tl.static_range(TAPS + 1):
        b_sums = b_sums + (tl.zeros([L], tl.float32),)
    for _ in range(batch):
        b_grad_z = tl.load(p_grad_z + o_l, mask=o_l < num, other=0.0)
        b_row = load_row(p_statistics, o_y, o_x, i_row % TAPS, h, w, TAPS, DILATION)
        b_more = ()
        for j in tl.static_range(TAPS):
            b_more = b_more + (b_sums[j] + b_grad_z * b_row[j],)
        b_sums = b_more + (b_sums[TAPS] + b_grad_z,)
        p_grad_z += num_cells
        p_statistics += 2 * num_cells
    p_parts += (tl.program_id(0) * 2 * TAPS + i_row) * F
    for j in tl.static_range(TAPS + 1):
        tl.store(p_parts + j, tl.sum(b_sums[j]))


@triton.jit
def sum_taps(p_parts, p_grad_spatial, i_row, num_parts, S: tl.constexpr, F: tl.constexpr, TAPS: tl.constexpr):
    """Gradient of a row of taps of the convolution over space; after the first row's, that of the bias."""
    o_f = tl.arange(0, F)
    b_sum = tl.zeros([S, F], tl.float32)
    for i_s in range(0, num_parts, S):
        o_s = i_s + tl.arange(0, S)
        p_s = p_parts + (o_s[:, None] * 2 * TAPS + i_row) * F + o_f[None, :]
        b_sum += tl.load(p_s, mask=(o_s < num_parts)[:, None], other=0.0)
    o_to = tl.where(o_f < TAPS, i_row * TAPS + o_f, 2 * TAPS * TAPS)
    tl.store(p_grad_spatial + o_to, tl.sum(b_sum, axis=0), mask=o_f < tl.where(i_row == 0, TAPS + 1, TAPS))


@triton.jit
def sum_mix(p_grad_mixed, p_averages, p_grad_tap, f, batch, num_channels, MIXED: tl.constexpr):
    """Gradient of tap f of the convolution over channels."""
    b_sum = tl.zeros([MIXED], tl.float32)
    for i in range(0, batch * num_channels, MIXED):
        o_i = i + tl.arange(0, MIXED)
        o_f = o_i % num_channels + f - 1
        m_i = o_i < batch * num_channels
        b_average = tl.load(p_averages + o_i + f - 1, mask=m_i & (o_f >= 0) & (o_f < num_channels), other=0.0)
        b_sum += tl.load(p_grad_mixed + o_i, mask=m_i, other=0.0) * b_average
    tl.store(p_grad_tap, tl.sum(b_sum))


@triton.jit
def sum_gates(
    p_grad_v, p_averages, p_mix, p_grad_weight, p_grad_bias, i_block, batch, num_channels,
    Q: tl.constexpr, MIXED: tl.constexpr, B: tl.constexpr,
):  # fmt: skip
    """Gradients of the weights and biases of Q gates, B samples at a time."""
    o_q = i_block * Q + tl.arange(0, Q)
    m_q = o_q < num_channels
    for i_c in range(0, num_channels, MIXED):
        o_c = i_c + tl.arange(0, MIXED)
        b_weight, b_bias = tl.zeros([Q, MIXED], tl.float32), tl.zeros([Q], tl.float32)
        for i_b in range(0, batch, B):
            o_b = i_b + tl.arange(0, B)
            m_b = o_b < batch
            p_v = p_grad_v + o_b[None, :] * num_channels + o_q[:, None]
            b_grad_v = tl.load(p_v, mask=m_q[:, None] & m_b[None, :], other=0.0)
            p_rows = p_averages + o_b[:, None] * num_channels
            b_mixed = mix_channels(p_rows, p_mix, o_c[None, :], m_b[:, None], num_channels, False)
            b_weight = tl.dot(b_grad_v, b_mixed, b_weight, input_precision="ieee")
            b_bias += tl.sum(b_grad_v, axis=1)
        m_qc = m_q[:, None] & (o_c < num_channels)[None, :]
        tl.store(p_grad_weight + o_q[:, None] * num_channels + o_c[None, :], b_weight, mask=m_qc)
        tl.store(p_grad_bias + o_q, b_bias, mask=m_q)


@triton.jit(do_not_specialize=["num_parts", "batch"])
def skip_bridge_bwd_kernel_weights(
    p_parts, p_grad_v, p_grad_mixed, p_averages, p_mix, p_grad_shared, p_grad_weight, p_grad_bias, num_parts, batch,
    num_channels, Q: tl.constexpr, MIXED: tl.constexpr, B: tl.constexpr, S: tl.constexpr, F: tl.constexpr,
    TAPS: tl.constexpr,
):  # fmt: skip
    """Gradients of all weights: a program has a block of gates, a row of taps over space, or a tap over channels."""
    num_blocks = tl.cdiv(num_channels, Q)
    i_row = tl.program_id(0) - num_blocks
    if i_row < 0:
        sum_gates(
            p_grad_v, p_averages, p_mix, p_grad_weight, p_grad_bias, tl.program_id(0), batch, num_channels, Q, MIXED, B
        )
    elif i_row < 2 * TAPS:
        sum_taps(p_parts, p_grad_shared, i_row, num_parts, S, F, TAPS)
    else:
        f = i_row - 2 * TAPS
        sum_mix(p_grad_mixed, p_averages, p_grad_shared + 2 * TAPS * TAPS + 1 + f, f, batch, num_channels, MIXED)
