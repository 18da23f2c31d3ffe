"""Kernels of the causal convolution in front of a Mamba block's scan, with its SiLU.

b batch, l steps (T of a tile), d channels (E of a tile), K taps: tap k of step t reads step t - (K - 1) + k, and what
lies before the first step is 0. x has strides s_ of the batch (b), a step (l) and a channel (d); what is written is
(b, l, d), contiguous.
"""

import triton
import triton.language as tl

from mhsvm.ops.common_kernels import sigmoid


@triton.jit
def tile_ids(channels, T: tl.constexpr, E: tl.constexpr):
    """Sample, steps (t), channels (e) and which of them there are."""
    o_e = tl.program_id(1) * E + tl.arange(0, E)
    return tl.program_id(2).to(tl.int64), tl.program_id(0) * T + tl.arange(0, T), o_e, o_e < channels


@triton.jit
def load_steps(p_x, o_t, o_e, m_e, length, s_l, s_d):
    """Steps (t, e), those before the first and behind the last being 0."""
    m_te = ((o_t >= 0) & (o_t < length))[:, None] & m_e[None, :]
    return tl.load(p_x + o_t[:, None] * s_l + o_e[None, :] * s_d, mask=m_te, other=0.0).to(tl.float32)


@triton.jit
def load_taps(p_weight, o_e, m_e, K: tl.constexpr):
    """Weights (e) of each tap, a tuple."""
    b_taps = ()
    for k in tl.static_range(K):
        b_k = tl.load(p_weight + o_e * K + k, mask=m_e, other=0.0).to(tl.float32)
        b_taps = b_taps + (b_k,)
    return b_taps


@triton.jit
def convolve_kernel(
    p_x, p_weight, p_bias, p_y, length, channels, s_b, s_l, s_d, K: tl.constexpr, T: tl.constexpr, E: tl.constexpr
):  # fmt: skip
    i_b, o_t, o_e, m_e = tile_ids(channels, T, E)
    b_taps = load_taps(p_weight, o_e, m_e, K)
    b_bias = tl.load(p_bias + o_e, mask=m_e, other=0.0).to(tl.float32)
    b_z = tl.zeros([T, E], tl.float32) + b_bias[None, :]
    for k in tl.static_range(K):
        b_z += b_taps[k][None, :] * load_steps(p_x + i_b * s_b, o_t + (k - K + 1), o_e, m_e, length, s_l, s_d)
    b_y = b_z * sigmoid(b_z)
    p_y += (i_b * length + o_t[:, None]) * channels + o_e[None, :]
    tl.store(p_y, b_y.to(p_y.dtype.element_ty), mask=(o_t < length)[:, None] & m_e[None, :])


@triton.jit
def differentiate_kernel(
    p_grad_y, p_x, p_weight, p_bias, p_grad_x, p_sums, length, channels, s_gb, s_gl, s_gd, s_b, s_l, s_d,
    K: tl.constexpr, T: tl.constexpr, E: tl.constexpr,
):  # fmt: skip
    """Gradient of x, and each tile's sums for those of the weights (d, K) and, behind them, of the bias (d)."""
    i_b, o_t, o_e, m_e = tile_ids(channels, T, E)
    b_taps = load_taps(p_weight, o_e, m_e, K)
    b_bias = tl.load(p_bias + o_e, mask=m_e, other=0.0).to(tl.float32)
    # All that the steps t to t + K - 1 read, whose outputs depend on step t.
    b_steps = ()
    for i in tl.static_range(2 * K - 1):
        b_i = load_steps(p_x + i_b * s_b, o_t + (i - K + 1), o_e, m_e, length, s_l, s_d)
        b_steps = b_steps + (b_i,)
    p_sums += (i_b * tl.num_programs(0) + tl.program_id(0)) * (K + 1) * channels
    b_grad_x = tl.zeros([T, E], tl.float32)
    for j in tl.static_range(K):
        b_z = tl.zeros([T, E], tl.float32) + b_bias[None, :]
        for k in tl.static_range(K):
            b_z += b_taps[k][None, :] * b_steps[j + k]
        b_share = sigmoid(b_z)
        b_grad = load_steps(p_grad_y + i_b * s_gb, o_t + j, o_e, m_e, length, s_gl, s_gd)
        b_grad *= b_share * (1.0 + b_z * (1.0 - b_share))
        b_grad_x += b_taps[K - 1 - j][None, :] * b_grad
        if j == 0:
            for k in tl.static_range(K):
                tl.store(p_sums + o_e * K + k, tl.sum(b_grad * b_steps[k], axis=0), mask=m_e)
            tl.store(p_sums + K * channels + o_e, tl.sum(b_grad, axis=0), mask=m_e)
    p_grad_x += (i_b * length + o_t[:, None]) * channels + o_e[None, :]
    tl.store(p_grad_x, b_grad_x.to(p_grad_x.dtype.element_ty), mask=(o_t < length)[:, None] & m_e[None, :])
