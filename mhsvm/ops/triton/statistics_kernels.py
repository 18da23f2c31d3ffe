"""Kernels of the statistics over routes: each element of a map for itself, its k routes read once.

b batch, m heads, k routes (K, the next power of 2, in a tile), l cells, d channels. y is contiguous, (b, m, k, l, d);
sums and coefficients are (b, m, l, d) with strides s_ of the batch (b), a head (m) and a cell (l), the last being 1.
"""

import triton
import triton.language as tl

EPSILON = tl.constexpr(1e-5)


@triton.jit
def load_routes(p_y, size, routes, o_k, o_e):
    """The routes (k, e) of some elements of a plane, what lies beyond the k routes or the plane being 0."""
    m_ke = (o_k < routes)[:, None] & (o_e < size)[None, :]
    p_plane = p_y + tl.program_id(1).to(tl.int64) * routes * size
    return tl.load(p_plane + o_k[:, None] * size + o_e[None, :], mask=m_ke, other=0.0)


@triton.jit
def measure(b_y, m_k, routes):
    """Minimum (e), distances from it (k, e), their mean (e), distances from the mean (k, e), and deviation (e)."""
    b_low = tl.min(tl.where(m_k, b_y, float("inf")), axis=0)
    b_above = tl.where(m_k, b_y - b_low[None, :], 0.0)
    b_mean = tl.sum(b_above, axis=0) / routes
    b_centred = tl.where(m_k, b_above - b_mean[None, :], 0.0)
    b_deviation = tl.sqrt(tl.sum(b_centred * b_centred, axis=0) / (routes - 1))
    return b_low, b_mean, b_centred, b_deviation


@triton.jit
def measure_kernel(
    p_y, p_total, p_variation, size, routes, heads, channels, s_b, s_m, s_l, K: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """Sum over the routes, and deviation over mean distance from the least one."""
    o_k, o_e = tl.arange(0, K), tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    m_k = (o_k < routes)[:, None]
    b_y = load_routes(p_y, size, routes, o_k, o_e)
    b_low, b_mean, b_centred, b_deviation = measure(b_y, m_k, routes)
    i_b, i_m = (tl.program_id(1) // heads).to(tl.int64), tl.program_id(1) % heads
    o_out = i_b * s_b + i_m * s_m + o_e // channels * s_l + o_e % channels
    tl.store(p_total + o_out, tl.sum(b_y, axis=0), mask=o_e < size)
    tl.store(p_variation + o_out, b_deviation / (b_mean + EPSILON), mask=o_e < size)


@triton.jit
def differentiate_kernel(
    p_y, p_grad_total, p_grad_variation, p_grad_y, size, routes, heads, channels,
    s_tb, s_tm, s_tl, s_vb, s_vm, s_vl, K: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Gradient of `measure_kernel`, laid out like y."""
    o_k, o_e = tl.arange(0, K), tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    m_k = (o_k < routes)[:, None]
    b_y = load_routes(p_y, size, routes, o_k, o_e)
    b_low, b_mean, b_centred, b_deviation = measure(b_y, m_k, routes)
    i_b, i_m = (tl.program_id(1) // heads).to(tl.int64), tl.program_id(1) % heads
    o_l, o_d = o_e // channels, o_e % channels
    b_total = tl.load(p_grad_total + i_b * s_tb + i_m * s_tm + o_l * s_tl + o_d, mask=o_e < size, other=0.0)
    b_variation = tl.load(p_grad_variation + i_b * s_vb + i_m * s_vm + o_l * s_vl + o_d, mask=o_e < size, other=0.0)
    b_grad_deviation = b_variation / (b_mean + EPSILON)
    b_grad_mean = -b_grad_deviation * b_deviation / (b_mean + EPSILON)
    # A deviation of 0 has slope 0, and routes that share the minimum share its gradient, as torch has it.
    flat = b_deviation == 0
    b_slope = tl.where(flat, 0.0, b_grad_deviation / ((routes - 1) * tl.where(flat, 1.0, b_deviation)))
    least = m_k & (b_y == b_low[None, :])
    b_ties = tl.sum(least.to(tl.float32), axis=0)
    b_grad_y = (b_total + b_grad_mean / routes)[None, :] + b_slope[None, :] * b_centred
    b_grad_y -= tl.where(least, (b_grad_mean / b_ties)[None, :], 0.0)
    p_plane = p_grad_y + tl.program_id(1).to(tl.int64) * routes * size
    tl.store(p_plane + o_k[:, None] * size + o_e[None, :], b_grad_y, mask=m_k & (o_e < size)[None, :])
