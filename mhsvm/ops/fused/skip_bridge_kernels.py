"""Kernels of the bridge over skip connections: all maps in one launch.

b batch, n pixels of all maps side by side, c channels of all maps side by side, t tiles of a map; of a tile p pixels
(P) and j channels (J). Programs of the first axis walk the tiles of one map after those of the other, those of the
second the samples. Maps and their layers come as tuples, one entry a map; `channels`, `pixels` and `widths` are its
sizes. Statistics, gates and sums are float32. Sums are taken tile by tile and added in a fixed order.
"""

import triton
import triton.language as tl

from mhsvm.ops.common_kernels import narrow_range, sigmoid
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
def find_tile(pixels, P: tl.constexpr):
    """Map of this program, and which of its tiles."""
    i_m, i_t, end = 0, tl.program_id(0), 0
    for j in tl.static_range(len(pixels) - 1):
        end += tl.cdiv(pixels[j], P)
        m_behind = tl.program_id(0) >= end
        i_m = tl.where(m_behind, j + 1, i_m)
        i_t = tl.where(m_behind, tl.program_id(0) - end, i_t)
    return i_m, i_t


@triton.jit
def load_row(p_x, o_y, o_x, i, h, w, TAPS: tl.constexpr, DILATION: tl.constexpr):
    """What row i of the taps over space reads for each pixel, a tuple, and 0 where that lies outside of the map."""
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
def sum_products(p_x, p_grad, b_weight, p_sums, o_p, c, num, J: tl.constexpr):
    """Store the sums over a tile's pixels of weight * x, or of weight * x * gradient, one a channel."""
    for i_c in range(0, c, J):
        o_c = i_c + tl.arange(0, J)
        m_cp = (o_c < c)[:, None] & (o_p < num)[None, :]
        b_product = load_map(p_x, o_c, o_p, m_cp, num, 1) * b_weight[None, :]
        if p_grad is not None:
            b_product *= load_map(p_grad, o_c, o_p, m_cp, num, 1)
        tl.store(p_sums + o_c, tl.sum(b_product, axis=1), mask=o_c < c)


@triton.jit
def channel_pixels(o_c, channels, pixels):
    """How many pixels the map of a channel has; none where there is no such channel."""
    b_pixels, end = tl.zeros(o_c.shape, tl.int32), 0
    for j in tl.static_range(len(channels)):
        b_pixels = tl.where((o_c >= end) & (o_c < end + channels[j]), pixels[j], b_pixels)
        end += channels[j]
    return b_pixels


@triton.jit
def load_sums(p_sums, o_c, b_pixels, num_tiles, num_channels, P: tl.constexpr, S: tl.constexpr):
    """Sums over all tiles of the channels' maps, S at a time."""
    b_tiles = tl.cdiv(b_pixels, P)
    b_sums = tl.zeros([S, o_c.shape[0]], tl.float32)
    for i_t in range(0, num_tiles, S):
        o_t = i_t + tl.arange(0, S)
        m_tc = o_t[:, None] < b_tiles[None, :]
        b_sums += tl.load(p_sums + o_t[:, None] * num_channels + o_c[None, :], mask=m_tc, other=0.0)
    return tl.sum(b_sums, axis=0)


@triton.jit
def row_pointers(p_matrices, o_r, channels, width):
    """Where rows of matrices begin that belong one above the other, one matrix a map."""
    p_rows, end = p_matrices[0] + o_r * width, 0
    for j in tl.static_range(1, len(channels)):
        end += channels[j - 1]
        p_rows = tl.where(o_r >= end, p_matrices[j] + (o_r - end) * width, p_rows)
    return p_rows


@triton.jit
def measure_kernel(
    p_skips, p_statistics, p_greatest, channels, pixels, num_pixels, P: tl.constexpr, J: tl.constexpr
):  # fmt: skip
    """Mean and maximum over channels, (b, 2, n), and the channel of the maximum, the first of equals, (b, n)."""
    i_b = tl.program_id(1).to(tl.int64)
    i_m, i_t = find_tile(pixels, P)
    c, num = pick(channels, i_m), pick(pixels, i_m)
    o_p = i_t * P + tl.arange(0, P)
    m_p = o_p < num
    # No channels where there is no pixel.
    b_end = tl.where(m_p, c, 0)
    p_x = pick(p_skips, i_m) + i_b * c * num + o_p
    b_sum, b_max = tl.zeros([P], tl.float32), tl.full([P], float("-inf"), tl.float32)
    b_greatest = tl.zeros([P], tl.int32)
    for i_c in range(0, c, J):
        for j in tl.static_range(J):
            m_x = i_c + j < b_end
            b_x = tl.load(p_x + (i_c + j) * num, mask=m_x, other=float("-inf")).to(tl.float32)
            m_larger = b_x > b_max
            b_greatest = tl.where(m_larger, i_c + j, b_greatest)
            b_max = tl.where(m_larger, b_x, b_max)
            b_sum += tl.where(m_x, b_x, 0.0)
    o_p += sum_before(pixels, i_m)
    tl.store(p_statistics + i_b * 2 * num_pixels + o_p, b_sum / c, mask=m_p)
    tl.store(p_statistics + (i_b * 2 + 1) * num_pixels + o_p, b_max, mask=m_p)
    tl.store(p_greatest + i_b * num_pixels + o_p, b_greatest, mask=m_p)


@triton.jit(do_not_specialize=["num_tiles"])
def attend_kernel(
    p_skips, p_statistics, p_spatial, p_bias, p_shares, p_sums, channels, pixels, widths, num_pixels, num_channels,
    num_tiles, P: tl.constexpr, J: tl.constexpr, TAPS: tl.constexpr, DILATION: tl.constexpr,
):  # fmt: skip
    """s = sigmoid(convolution of the statistics), (b, n), and each tile's sums of (1 + s) * skip, (b, t, c)."""
    i_b = tl.program_id(1).to(tl.int64)
    i_m, i_t = find_tile(pixels, P)
    c, num, w = pick(channels, i_m), pick(pixels, i_m), pick(widths, i_m)
    h = num // w
    before = sum_before(pixels, i_m)
    # A lane's pixels apart, so that lanes side by side read taps side by side.
    o_p = i_t * P + narrow_range(P, num)
    m_p = o_p < num
    o_y, o_x = o_p // w, o_p % w
    p_mean = p_statistics + i_b * 2 * num_pixels + before
    b_z = tl.zeros([P], tl.float32) + tl.load(p_bias).to(tl.float32)
    for i in range(TAPS):
        b_means = load_row(p_mean, o_y, o_x, i, h, w, TAPS, DILATION)
        b_maxima = load_row(p_mean + num_pixels, o_y, o_x, i, h, w, TAPS, DILATION)
        for j in tl.static_range(TAPS):
            b_z += tl.load(p_spatial + i * TAPS + j).to(tl.float32) * b_means[j]
            b_z += tl.load(p_spatial + (TAPS + i) * TAPS + j).to(tl.float32) * b_maxima[j]
    b_share = sigmoid(b_z)
    tl.store(p_shares + i_b * num_pixels + before + o_p, b_share, mask=m_p)
    p_sums += (i_b * num_tiles + i_t) * num_channels + sum_before(channels, i_m)
    p_x = pick(p_skips, i_m) + i_b * c * num
    sum_products(p_x, None, 1.0 + b_share, p_sums, i_t * P + tl.arange(0, P), c, num, J)


@triton.jit(do_not_specialize=["num_tiles"])
def gate_kernel(
    p_sums, p_mix, p_weights, p_biases, p_averages, p_gates, channels, pixels, num_channels, num_tiles,
    P: tl.constexpr, R: tl.constexpr, K: tl.constexpr, S: tl.constexpr,
):  # fmt: skip
    """Averages of the channels and gates, (b, c) each; a program R of a sample's gates, from K channels at a time."""
    i_b = tl.program_id(1).to(tl.int64)
    o_r = tl.program_id(0) * R + tl.arange(0, R)
    m_r = o_r < num_channels
    p_rows = row_pointers(p_weights, o_r, channels, num_channels)
    b_z = tl.load(row_pointers(p_biases, o_r, channels, 1), mask=m_r, other=0.0)
    p_sums += i_b * num_tiles * num_channels
    for i_c in range(0, num_channels, K):
        o_c = i_c + tl.arange(0, K)
        m_c = o_c < num_channels
        b_mixed = tl.zeros([K], tl.float32)
        for k in range(3):
            b_pixels = channel_pixels(o_c + k - 1, channels, pixels)
            b_average = load_sums(p_sums, o_c + k - 1, b_pixels, num_tiles, num_channels, P, S)
            b_average /= tl.maximum(b_pixels, 1)
            b_mixed += tl.load(p_mix + k).to(tl.float32) * b_average
            if (k == 1) & (tl.program_id(0) == 0):
                tl.store(p_averages + i_b * num_channels + o_c, b_average, mask=m_c)
        b_weight = tl.load(p_rows[:, None] + o_c[None, :], mask=m_r[:, None] & m_c[None, :], other=0.0)
        b_z += tl.sum(b_weight * b_mixed[None, :], axis=1)
    tl.store(p_gates + i_b * num_channels + o_r, sigmoid(b_z), mask=m_r)


@triton.jit
def apply_kernel(
    p_skips, p_shares, p_gates, p_outs, channels, pixels, num_pixels, num_channels, P: tl.constexpr, J: tl.constexpr
):  # fmt: skip
    """out = skip * (gate * (1 + s) + s)."""
    i_b = tl.program_id(1).to(tl.int64)
    i_m, i_t = find_tile(pixels, P)
    c, num = pick(channels, i_m), pick(pixels, i_m)
    o_p = i_t * P + tl.arange(0, P)
    m_p = o_p < num
    b_share = tl.load(p_shares + i_b * num_pixels + sum_before(pixels, i_m) + o_p, mask=m_p, other=0.0)[None, :]
    p_gates += i_b * num_channels + sum_before(channels, i_m)
    p_x, p_out = pick(p_skips, i_m) + i_b * c * num, pick(p_outs, i_m) + i_b * c * num
    for i_c in range(0, c, J):
        o_c = i_c + tl.arange(0, J)
        m_cp = (o_c < c)[:, None] & m_p[None, :]
        b_gate = tl.load(p_gates + o_c, mask=o_c < c, other=0.0)[:, None]
        b_out = load_map(p_x, o_c, o_p, m_cp, num, 1) * (b_gate * (1.0 + b_share) + b_share)
        tl.store(p_out + o_c[:, None] * num + o_p[None, :], b_out.to(p_out.dtype.element_ty), mask=m_cp)
