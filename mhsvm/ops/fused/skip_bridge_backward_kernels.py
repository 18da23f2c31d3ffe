"""Backward kernels of the bridge over skip connections; letters, tuples and tiles as in `skip_bridge_kernels`.

z is what the sigmoid over space takes, v what those of the gates take.
"""

import triton
import triton.language as tl

from mhsvm.ops.common_kernels import narrow_range
from mhsvm.ops.fused.group_norm_kernels import load_map
from mhsvm.ops.fused.skip_bridge_kernels import (
    channel_pixels,
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
    """Convolution of three taps over channels, or its gradient by what it takes."""
    b_mixed = tl.zeros((p_values + o_c).shape, tl.float32)
    for k in tl.static_range(3):
        o_k = o_c + 1 - k if BACKWARD else o_c + k - 1
        b_k = tl.load(p_values + o_k, mask=m_rows & (o_k >= 0) & (o_k < num_channels), other=0.0)
        b_mixed += tl.load(p_mix + k).to(tl.float32) * b_k
    return b_mixed


@triton.jit(do_not_specialize=["num_tiles"])
def sum_kernel(
    p_grads, p_skips, p_shares, p_sums, channels, pixels, num_pixels, num_channels, num_tiles,
    P: tl.constexpr, J: tl.constexpr,
):  # fmt: skip
    """Gradient of the gates: each tile's sums of (1 + s) * skip * gradient, (b, t, c)."""
    i_b = tl.program_id(1).to(tl.int64)
    i_m, i_t = find_tile(pixels, P)
    c, num = pick(channels, i_m), pick(pixels, i_m)
    o_p = i_t * P + tl.arange(0, P)
    b_share = tl.load(p_shares + i_b * num_pixels + sum_before(pixels, i_m) + o_p, mask=o_p < num, other=0.0)
    p_sums += (i_b * num_tiles + i_t) * num_channels + sum_before(channels, i_m)
    p_x, p_grad = pick(p_skips, i_m) + i_b * c * num, pick(p_grads, i_m) + i_b * c * num
    sum_products(p_x, p_grad, 1.0 + b_share, p_sums, o_p, c, num, J)


@triton.jit(do_not_specialize=["num_tiles"])
def spread_kernel(
    p_sums, p_gates, p_weights, p_grad_v, p_grad_mixed, channels, pixels, num_channels, num_tiles,
    P: tl.constexpr, R: tl.constexpr, K: tl.constexpr, S: tl.constexpr,
):  # fmt: skip
    """Gradients of v and of the mixed averages, (b, c) each; a program R of the latter, from K gates at a time."""
    i_b = tl.program_id(1).to(tl.int64)
    o_c = tl.program_id(0) * R + tl.arange(0, R)
    m_c = o_c < num_channels
    p_sums += i_b * num_tiles * num_channels
    b_grad = tl.zeros([R], tl.float32)
    for i_r in range(0, num_channels, K):
        o_r = i_r + tl.arange(0, K)
        m_r = o_r < num_channels
        b_gate = tl.load(p_gates + i_b * num_channels + o_r, mask=m_r, other=0.0)
        b_pixels = channel_pixels(o_r, channels, pixels)
        b_grad_v = load_sums(p_sums, o_r, b_pixels, num_tiles, num_channels, P, S) * b_gate * (1.0 - b_gate)
        if tl.program_id(0) == 0:
            tl.store(p_grad_v + i_b * num_channels + o_r, b_grad_v, mask=m_r)
        p_rows = row_pointers(p_weights, o_r, channels, num_channels)
        b_weight = tl.load(p_rows[:, None] + o_c[None, :], mask=m_r[:, None] & m_c[None, :], other=0.0)
        b_grad += tl.sum(b_weight * b_grad_v[:, None], axis=0)
    tl.store(p_grad_mixed + i_b * num_channels + o_c, b_grad, mask=m_c)


@triton.jit
def slope_kernel(
    p_grads, p_skips, p_shares, p_gates, p_grad_mixed, p_mix, p_grad_z, channels, pixels, num_pixels, num_channels,
    P: tl.constexpr, J: tl.constexpr,
):  # fmt: skip
    """Gradient of z, (b, n)."""
    i_b = tl.program_id(1).to(tl.int64)
    i_m, i_t = find_tile(pixels, P)
    c, num = pick(channels, i_m), pick(pixels, i_m)
    before_c, before_p = sum_before(channels, i_m), sum_before(pixels, i_m)
    o_p = i_t * P + tl.arange(0, P)
    m_p = o_p < num
    p_gates += i_b * num_channels + before_c
    p_x, p_grad = pick(p_skips, i_m) + i_b * c * num, pick(p_grads, i_m) + i_b * c * num
    b_sum = tl.zeros([J, P], tl.float32)
    for i_c in range(0, c, J):
        o_c = i_c + tl.arange(0, J)
        m_c = o_c < c
        m_cp = m_c[:, None] & m_p[None, :]
        b_gate = tl.load(p_gates + o_c, mask=m_c, other=0.0)
        b_level = mix_channels(p_grad_mixed + i_b * num_channels, p_mix, before_c + o_c, m_c, num_channels, True) / num
        b_grad = load_map(p_grad, o_c, o_p, m_cp, num, 1) * (1.0 + b_gate)[:, None] + b_level[:, None]
        b_sum += load_map(p_x, o_c, o_p, m_cp, num, 1) * b_grad
    o_p += before_p
    b_share = tl.load(p_shares + i_b * num_pixels + o_p, mask=m_p, other=0.0)
    b_grad_z = tl.sum(b_sum, axis=0) * b_share * (1.0 - b_share)
    tl.store(p_grad_z + i_b * num_pixels + o_p, b_grad_z, mask=m_p)


@triton.jit
def differentiate_kernel(
    p_grads, p_shares, p_greatest, p_gates, p_grad_mixed, p_mix, p_grad_z, p_spatial, p_grad_skips,
    channels, pixels, widths, num_pixels, num_channels,
    P: tl.constexpr, J: tl.constexpr, TAPS: tl.constexpr, DILATION: tl.constexpr,
):  # fmt: skip
    """Gradient of the maps."""
    i_b = tl.program_id(1).to(tl.int64)
    i_m, i_t = find_tile(pixels, P)
    c, num, w = pick(channels, i_m), pick(pixels, i_m), pick(widths, i_m)
    h = num // w
    before_c, before_p = sum_before(channels, i_m), i_b * num_pixels + sum_before(pixels, i_m)
    # Narrow for the maps too: tiles of two layouts would go through shared memory.
    o_p = i_t * P + narrow_range(P, num)
    m_p = o_p < num
    o_y, o_x = o_p // w, o_p % w
    b_mean, b_max = tl.zeros([P], tl.float32), tl.zeros([P], tl.float32)
    for i in range(TAPS):
        # The pixel whose tap (i, j) reads this one lies where the opposite tap does.
        b_row = load_row(p_grad_z + before_p, o_y, o_x, TAPS - 1 - i, h, w, TAPS, DILATION)
        for j in tl.static_range(TAPS):
            b_mean += tl.load(p_spatial + i * TAPS + j).to(tl.float32) * b_row[TAPS - 1 - j]
            b_max += tl.load(p_spatial + (TAPS + i) * TAPS + j).to(tl.float32) * b_row[TAPS - 1 - j]
    b_mean, b_max = (b_mean / c)[None, :], b_max[None, :]
    b_share = tl.load(p_shares + before_p + o_p, mask=m_p, other=0.0)[None, :]
    b_greatest = tl.load(p_greatest + before_p + o_p, mask=m_p, other=0)[None, :]
    p_gates += i_b * num_channels + before_c
    p_grad, p_grad_x = pick(p_grads, i_m) + i_b * c * num, pick(p_grad_skips, i_m) + i_b * c * num
    for i_c in range(0, c, J):
        o_c = i_c + tl.arange(0, J)
        m_c = o_c < c
        m_cp = m_c[:, None] & m_p[None, :]
        b_gate = tl.load(p_gates + o_c, mask=m_c, other=0.0)[:, None]
        b_level = mix_channels(p_grad_mixed + i_b * num_channels, p_mix, before_c + o_c, m_c, num_channels, True) / num
        b_grad_x = load_map(p_grad, o_c, o_p, m_cp, num, 1) * (b_gate * (1.0 + b_share) + b_share)
        b_grad_x += b_level[:, None] * (1.0 + b_share) + b_mean + tl.where(o_c[:, None] == b_greatest, b_max, 0.0)
        tl.store(p_grad_x + o_c[:, None] * num + o_p[None, :], b_grad_x.to(p_grad_x.dtype.element_ty), mask=m_cp)


@triton.jit(do_not_specialize=["batch"])
def correlate_kernel(
    p_grad_z, p_statistics, p_parts, pixels, widths, num_pixels, batch,
    P: tl.constexpr, X: tl.constexpr, TAPS: tl.constexpr, DILATION: tl.constexpr,
):  # fmt: skip
    """Each tile's share, over all samples, in the gradients of a statistic's row of taps, (tiles, 2 * TAPS, X).

    Behind a row's taps stands the tile's share in the gradient of the bias.
    """
    i_m, i_t = find_tile(pixels, P)
    num, w = pick(pixels, i_m), pick(widths, i_m)
    h = num // w
    before = sum_before(pixels, i_m)
    i_row = tl.program_id(1)
    o_p = i_t * P + narrow_range(P, num)
    o_y, o_x = o_p // w, o_p % w
    p_grad_z += before
    p_statistics += i_row // TAPS * num_pixels + before
    b_sums = ()
    for _ in tl.static_range(TAPS + 1):
        b_sums = b_sums + (tl.zeros([P], tl.float32),)
    for _ in range(batch):
        b_grad_z = tl.load(p_grad_z + o_p, mask=o_p < num, other=0.0)
        b_row = load_row(p_statistics, o_y, o_x, i_row % TAPS, h, w, TAPS, DILATION)
        b_more = ()
        for j in tl.static_range(TAPS):
            b_more = b_more + (b_sums[j] + b_grad_z * b_row[j],)
        b_sums = b_more + (b_sums[TAPS] + b_grad_z,)
        p_grad_z += num_pixels
        p_statistics += 2 * num_pixels
    p_parts += (tl.program_id(0) * 2 * TAPS + i_row) * X
    for j in tl.static_range(TAPS + 1):
        tl.store(p_parts + j, tl.sum(b_sums[j]))


@triton.jit
def sum_taps(p_parts, p_grad_spatial, i_row, num_parts, S: tl.constexpr, X: tl.constexpr, TAPS: tl.constexpr):
    """Gradient of a row of taps of the convolution over space; with the first one that of the bias, behind all taps."""
    o_j = tl.arange(0, X)
    b_sum = tl.zeros([S, X], tl.float32)
    for i_s in range(0, num_parts, S):
        o_s = i_s + tl.arange(0, S)
        p_s = p_parts + (o_s[:, None] * 2 * TAPS + i_row) * X + o_j[None, :]
        b_sum += tl.load(p_s, mask=(o_s < num_parts)[:, None], other=0.0)
    o_to = tl.where(o_j < TAPS, i_row * TAPS + o_j, 2 * TAPS * TAPS)
    tl.store(p_grad_spatial + o_to, tl.sum(b_sum, axis=0), mask=o_j < tl.where(i_row == 0, TAPS + 1, TAPS))


@triton.jit
def sum_mix(p_grad_mixed, p_averages, p_grad_tap, k, batch, num_channels, K: tl.constexpr):
    """Gradient of tap k of the convolution over channels."""
    b_sum = tl.zeros([K], tl.float32)
    for i in range(0, batch * num_channels, K):
        o_i = i + tl.arange(0, K)
        o_k = o_i % num_channels + k - 1
        m_i = o_i < batch * num_channels
        b_average = tl.load(p_averages + o_i + k - 1, mask=m_i & (o_k >= 0) & (o_k < num_channels), other=0.0)
        b_sum += tl.load(p_grad_mixed + o_i, mask=m_i, other=0.0) * b_average
    tl.store(p_grad_tap, tl.sum(b_sum))


@triton.jit
def sum_gates(
    p_grad_v, p_averages, p_mix, p_grad_weight, p_grad_bias, i_block, batch, num_channels,
    R: tl.constexpr, K: tl.constexpr, B: tl.constexpr,
):  # fmt: skip
    """Gradients of R gates' weights and biases, B samples at a time."""
    o_r = i_block * R + tl.arange(0, R)
    m_r = o_r < num_channels
    for i_c in range(0, num_channels, K):
        o_c = i_c + tl.arange(0, K)
        b_weight, b_bias = tl.zeros([R, K], tl.float32), tl.zeros([R], tl.float32)
        for i_b in range(0, batch, B):
            o_b = i_b + tl.arange(0, B)
            m_b = o_b < batch
            p_v = p_grad_v + o_b[None, :] * num_channels + o_r[:, None]
            b_grad_v = tl.load(p_v, mask=m_r[:, None] & m_b[None, :], other=0.0)
            p_rows = p_averages + o_b[:, None] * num_channels
            b_mixed = mix_channels(p_rows, p_mix, o_c[None, :], m_b[:, None], num_channels, False)
            b_weight = tl.dot(b_grad_v, b_mixed, b_weight, input_precision="ieee")
            b_bias += tl.sum(b_grad_v, axis=1)
        m_rc = m_r[:, None] & (o_c < num_channels)[None, :]
        tl.store(p_grad_weight + o_r[:, None] * num_channels + o_c[None, :], b_weight, mask=m_rc)
        tl.store(p_grad_bias + o_r, b_bias, mask=m_r)


@triton.jit(do_not_specialize=["num_parts", "batch"])
def sum_weights_kernel(
    p_parts, p_grad_v, p_grad_mixed, p_averages, p_mix, p_grad_shared, p_grad_weight, p_grad_bias, num_parts, batch,
    num_channels, R: tl.constexpr, K: tl.constexpr, B: tl.constexpr, S: tl.constexpr, X: tl.constexpr,
    TAPS: tl.constexpr,
):  # fmt: skip
    """Gradients of all weights: a program a block of gates, a row of taps over space, or a tap over channels."""
    num_blocks = tl.cdiv(num_channels, R)
    i_row = tl.program_id(0) - num_blocks
    if i_row < 0:
        sum_gates(
            p_grad_v, p_averages, p_mix, p_grad_weight, p_grad_bias, tl.program_id(0), batch, num_channels, R, K, B
        )
    elif i_row < 2 * TAPS:
        sum_taps(p_parts, p_grad_shared, i_row, num_parts, S, X, TAPS)
    else:
        k = i_row - 2 * TAPS
        sum_mix(p_grad_mixed, p_averages, p_grad_shared + 2 * TAPS * TAPS + 1 + k, k, batch, num_channels, K)
