"""Kernels of the bridge over skip connections: all maps in one launch.

Cells (num_cells) and channels (c) are those of all maps, concatenated; q gates, one for each channel. The first axis of
the grid is the tiles of all maps, one map after the other; the second is the samples. Maps and their layers are tuples
with an entry for each map; `channels`, `cells` and `widths` are the sizes of the maps. Statistics, gates and sums are
float32. Sums are computed for each tile (s) and added in a fixed order.
"""

import triton
import triton.language as tl

from mhsvm.ops.common_kernels import sigmoid, unaligned_range
from mhsvm.ops.fused.group_norm_kernels import load_map


@triton.jit
def pick(values, i):
    """Entry i of a tuple of numbers or pointers."""
    value = values[0]
    for j in tl.static_range(1, len(values)):
        value = tl.where(i == j, values[j], value)
    return value


@triton.jit
def sum_before(values, i):
    """Sum of a tuple's entries before i."""
    total = 0
    for j in tl.static_range(len(values) - 1):
        total += tl.where(i > j, values[j], 0)
    return total


@triton.jit
def find_tile(cells, L: tl.constexpr):
    """Map of this program, and the index of its tile in the map."""
    i_map, i_s, end = 0, tl.program_id(0), 0
    for j in tl.static_range(len(cells) - 1):
        end += tl.cdiv(cells[j], L)
        m_after = tl.program_id(0) >= end
        i_map = tl.where(m_after, j + 1, i_map)
        i_s = tl.where(m_after, tl.program_id(0) - end, i_s)
    return i_map, i_s


@triton.jit
def load_row(p_x, o_y, o_x, i, h, w, TAPS: tl.constexpr, DILATION: tl.constexpr):
    """Inputs of row i of the taps over space for each cell, a tuple; 0 outside the map."""
    o_y += (i - TAPS // 2) * DILATION
    m_row = (o_y >= 0) & (o_y < h)
    p_x += o_y * w + o_x
    b_row = ()
    for j in tl.static_range(TAPS):
        o_j = o_x + (j - TAPS // 2) * DILATION
        # A constant added to pointers is part of the load.
        b_j = tl.load(p_x + (j - TAPS // 2) * DILATION, mask=m_row & (o_j >= 0) & (o_j < w), other=0.0)
        b_row = b_row + (b_j,)
    return b_row


@triton.jit
def sum_products(p_x, p_grad, b_weight, p_sums, o_l, c, num, C: tl.constexpr):
    """Store the sum over the cells of a tile of weight * x, or of weight * x * gradient, for each channel."""
    for i_c in range(0, c, C):
        o_c = i_c + tl.arange(0, C)
        m_cl = (o_c < c)[:, None] & (o_l < num)[None, :]
        b_product = load_map(p_x, o_c, o_l, m_cl, num, 1) * b_weight[None, :]
        if p_grad is not None:
            b_product *= load_map(p_grad, o_c, o_l, m_cl, num, 1)
        tl.store(p_sums + o_c, tl.sum(b_product, axis=1), mask=o_c < c)


@triton.jit
def channel_cells(o_c, channels, cells):
    """Number of cells of the map of each channel; 0 if there is no such channel."""
    b_cells, end = tl.zeros(o_c.shape, tl.int32), 0
    for j in tl.static_range(len(channels)):
        b_cells = tl.where((o_c >= end) & (o_c < end + channels[j]), cells[j], b_cells)
        end += channels[j]
    return b_cells


@triton.jit
def load_sums(p_sums, o_c, b_cells, num_tiles, num_channels, L: tl.constexpr, S: tl.constexpr):
    """Sums over all tiles of the channels' maps, S at a time."""
    b_tiles = tl.cdiv(b_cells, L)
    b_sums = tl.zeros([S, o_c.shape[0]], tl.float32)
    for i_s in range(0, num_tiles, S):
        o_s = i_s + tl.arange(0, S)
        m_sc = o_s[:, None] < b_tiles[None, :]
        b_sums += tl.load(p_sums + o_s[:, None] * num_channels + o_c[None, :], mask=m_sc, other=0.0)
    return tl.sum(b_sums, axis=0)


@triton.jit
def row_pointers(p_matrices, o_q, channels, width):
    """Pointers to the rows (q) of the matrices of all maps, stacked."""
    p_rows, end = p_matrices[0] + o_q * width, 0
    for j in tl.static_range(1, len(channels)):
        end += channels[j - 1]
        p_rows = tl.where(o_q >= end, p_matrices[j] + (o_q - end) * width, p_rows)
    return p_rows


@triton.jit
def skip_bridge_fwd_kernel_statistics(
    p_skips, p_statistics, p_greatest, channels, cells, num_cells, L: tl.constexpr, C: tl.constexpr
):  # fmt: skip
    """Mean and maximum over channels, (b, 2, num_cells), and the first channel of the maximum, (b, num_cells)."""
    i_b = tl.program_id(1).to(tl.int64)
    i_map, i_s = find_tile(cells, L)
    c, num = pick(channels, i_map), pick(cells, i_map)
    o_l = i_s * L + tl.arange(0, L)
    m_l = o_l < num
    # No channels if there is no cell.
    b_end = tl.where(m_l, c, 0)
    p_x = pick(p_skips, i_map) + i_b * c * num + o_l
    b_sum, b_max = tl.zeros([L], tl.float32), tl.full([L], float("-inf"), tl.float32)
    b_greatest = tl.zeros([L], tl.int32)
    for i_c in range(0, c, C):
        for j in tl.static_range(C):
            m_x = i_c + j < b_end
            b_x = tl.load(p_x + (i_c + j) * num, mask=m_x, other=float("-inf")).to(tl.float32)
            m_larger = b_x > b_max
            b_greatest = tl.where(m_larger, i_c + j, b_greatest)
            b_max = tl.where(m_larger, b_x, b_max)
            b_sum += tl.where(m_x, b_x, 0.0)
    o_l += sum_before(cells, i_map)
    tl.store(p_statistics + i_b * 2 * num_cells + o_l, b_sum / c, mask=m_l)
    tl.store(p_statistics + (i_b * 2 + 1) * num_cells + o_l, b_max, mask=m_l)
    tl.store(p_greatest + i_b * num_cells + o_l, b_greatest, mask=m_l)


@triton.jit(do_not_specialize=["num_tiles"])
def skip_bridge_fwd_kernel_attention(
    p_skips, p_statistics, p_spatial, p_bias, p_attention, p_sums, channels, cells, widths, num_cells, num_channels,
    num_tiles, L: tl.constexpr, C: tl.constexpr, TAPS: tl.constexpr, DILATION: tl.constexpr,
):  # fmt: skip
    """s = sigmoid(convolution of the statistics), (b, num_cells), and each tile's sums of (1 + s) * skip, (b, s, c)."""
    i_b = tl.program_id(1).to(tl.int64)
    i_map, i_s = find_tile(cells, L)
    c, num, w = pick(channels, i_map), pick(cells, i_map), pick(widths, i_map)
    h = num // w
    before = sum_before(cells, i_map)
    # The cells of a lane are not adjacent, so that neighboring lanes read neighboring taps.
    o_l = i_s * L + unaligned_range(L, num)
    m_l = o_l < num
    o_y, o_x = o_l // w, o_l % w
    p_mean = p_statistics + i_b * 2 * num_cells + before
    b_z = tl.zeros([L], tl.float32) + tl.load(p_bias).to(tl.float32)
    for i in range(TAPS):
        b_means = load_row(p_mean, o_y, o_x, i, h, w, TAPS, DILATION)
        b_maxima = load_row(p_mean + num_cells, o_y, o_x, i, h, w, TAPS, DILATION)
        for j in tl.static_range(TAPS):
            b_z += tl.load(p_spatial + i * TAPS + j).to(tl.float32) * b_means[j]
            b_z += tl.load(p_spatial + (TAPS + i) * TAPS + j).to(tl.float32) * b_maxima[j]
    b_attention = sigmoid(b_z)
    tl.store(p_attention + i_b * num_cells + before + o_l, b_attention, mask=m_l)
    p_sums += (i_b * num_tiles + i_s) * num_channels + sum_before(channels, i_map)
    p_x = pick(p_skips, i_map) + i_b * c * num
    sum_products(p_x, None, 1.0 + b_attention, p_sums, i_s * L + tl.arange(0, L), c, num, C)


@triton.jit(do_not_specialize=["num_tiles"])
def skip_bridge_fwd_kernel_gates(
    p_sums, p_mix, p_weights, p_biases, p_averages, p_gates, channels, cells, num_channels, num_tiles,
    L: tl.constexpr, Q: tl.constexpr, MIXED: tl.constexpr, S: tl.constexpr,
):  # fmt: skip
    """Averages of the channels and gates, (b, c) each; a program computes Q gates, from MIXED channels at a time."""
    i_b = tl.program_id(1).to(tl.int64)
    o_q = tl.program_id(0) * Q + tl.arange(0, Q)
    m_q = o_q < num_channels
    p_rows = row_pointers(p_weights, o_q, channels, num_channels)
    b_z = tl.load(row_pointers(p_biases, o_q, channels, 1), mask=m_q, other=0.0)
    p_sums += i_b * num_tiles * num_channels
    for i_c in range(0, num_channels, MIXED):
        o_c = i_c + tl.arange(0, MIXED)
        m_c = o_c < num_channels
        b_mixed = tl.zeros([MIXED], tl.float32)
        for f in range(3):
            b_cells = channel_cells(o_c + f - 1, channels, cells)
            b_average = load_sums(p_sums, o_c + f - 1, b_cells, num_tiles, num_channels, L, S)
            b_average /= tl.maximum(b_cells, 1)
            b_mixed += tl.load(p_mix + f).to(tl.float32) * b_average
            if (f == 1) & (tl.program_id(0) == 0):
                tl.store(p_averages + i_b * num_channels + o_c, b_average, mask=m_c)
        b_weight = tl.load(p_rows[:, None] + o_c[None, :], mask=m_q[:, None] & m_c[None, :], other=0.0)
        b_z += tl.sum(b_weight * b_mixed[None, :], axis=1)
    tl.store(p_gates + i_b * num_channels + o_q, sigmoid(b_z), mask=m_q)


@triton.jit
def skip_bridge_fwd_kernel(
    p_skips, p_attention, p_gates, p_outs, channels, cells, num_cells, num_channels, L: tl.constexpr, C: tl.constexpr
):  # fmt: skip
    """out = skip * (gate * (1 + s) + s)."""
    i_b = tl.program_id(1).to(tl.int64)
    i_map, i_s = find_tile(cells, L)
    c, num = pick(channels, i_map), pick(cells, i_map)
    o_l = i_s * L + tl.arange(0, L)
    m_l = o_l < num
    b_attention = tl.load(p_attention + i_b * num_cells + sum_before(cells, i_map) + o_l, mask=m_l, other=0.0)[None, :]
    p_gates += i_b * num_channels + sum_before(channels, i_map)
    p_x, p_out = pick(p_skips, i_map) + i_b * c * num, pick(p_outs, i_map) + i_b * c * num
    for i_c in range(0, c, C):
        o_c = i_c + tl.arange(0, C)
        m_cl = (o_c < c)[:, None] & m_l[None, :]
        b_gate = tl.load(p_gates + o_c, mask=o_c < c, other=0.0)[:, None]
        b_out = load_map(p_x, o_c, o_l, m_cl, num, 1) * (b_gate * (1.0 + b_attention) + b_attention)
        tl.store(p_out + o_c[:, None] * num + o_l[None, :], b_out.to(p_out.dtype.element_ty), mask=m_cl)
