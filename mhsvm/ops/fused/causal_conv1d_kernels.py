"""Kernels of the causal convolution before the scan of a Mamba block, with SiLU.

Tap f of step t reads step t - (TAPS - 1) + f; steps before the first are 0. x has strides of the batch (b), a step (l)
and a channel (d); outputs are (b, l, d), contiguous.
"""

import triton
import triton.language as tl

from mhsvm.ops.common_kernels import sigmoid


@triton.jit
def tile_ids(channels, T: tl.constexpr, D: tl.constexpr):
    """Sample, steps (t), channels (d) and the mask of the channels of a program."""
    o_d = tl.program_id(1) * D + tl.arange(0, D)
    return tl.program_id(2).to(tl.int64), tl.program_id(0) * T + tl.arange(0, T), o_d, o_d < channels


@triton.jit
def load_steps(p_x, o_t, o_d, m_d, length, s_l, s_d):
    """Steps (t, d); those before the first and after the last are 0."""
    m_td = ((o_t >= 0) & (o_t < length))[:, None] & m_d[None, :]
    return tl.load(p_x + o_t[:, None] * s_l + o_d[None, :] * s_d, mask=m_td, other=0.0).to(tl.float32)


@triton.jit
def load_taps(p_weight, o_d, m_d, TAPS: tl.constexpr):
    """Weights (d) of each tap, a tuple."""
    b_taps = ()
    for f in tl.static_range(TAPS):
        b_tap = tl.load(p_weight + o_d * TAPS + f, mask=m_d, other=0.0).to(tl.float32)
        b_taps = b_taps + (b_tap,)
    return b_taps


@triton.jit
def causal_conv1d_fwd_kernel(
    p_x, p_weight, p_bias, p_y, length, channels, s_b, s_l, s_d, TAPS: tl.constexpr, T: tl.constexpr, D: tl.constexpr
):  # fmt: skip
    i_b, o_t, o_d, m_d = tile_ids(channels, T, D)
    b_taps = load_taps(p_weight, o_d, m_d, TAPS)
    b_bias = tl.load(p_bias + o_d, mask=m_d, other=0.0).to(tl.float32)
    b_z = tl.zeros([T, D], tl.float32) + b_bias[None, :]
    for f in tl.static_range(TAPS):
        b_z += b_taps[f][None, :] * load_steps(p_x + i_b * s_b, o_t + (f - TAPS + 1), o_d, m_d, length, s_l, s_d)
    b_y = b_z * sigmoid(b_z)
    p_y += (i_b * length + o_t[:, None]) * channels + o_d[None, :]
    tl.store(p_y, b_y.to(p_y.dtype.element_ty), mask=(o_t < length)[:, None] & m_d[None, :])


@triton.jit
def causal_conv1d_bwd_kernel(
    p_grad_y, p_x, p_weight, p_bias, p_grad_x, p_sums, length, channels, s_gb, s_gl, s_gd, s_b, s_l, s_d,
    TAPS: tl.constexpr, T: tl.constexpr, D: tl.constexpr,
):  # fmt: skip
    """Gradient of x, and each tile's sums for the gradients of the weights (d, f), then of the bias (d)."""
    i_b, o_t, o_d, m_d = tile_ids(channels, T, D)
    b_taps = load_taps(p_weight, o_d, m_d, TAPS)
    b_bias = tl.load(p_bias + o_d, mask=m_d, other=0.0).to(tl.float32)
    # All inputs of the steps t to t + TAPS - 1, whose outputs depend on step t.
    b_steps = ()
    for i in tl.static_range(2 * TAPS - 1):
        b_i = load_steps(p_x + i_b * s_b, o_t + (i - TAPS + 1), o_d, m_d, length, s_l, s_d)
        b_steps = b_steps + (b_i,)
    p_sums += (i_b * tl.num_programs(0) + tl.program_id(0)) * (TAPS + 1) * channels
    b_grad_x = tl.zeros([T, D], tl.float32)
    for j in tl.static_range(TAPS):
        b_z = tl.zeros([T, D], tl.float32) + b_bias[None, :]
        for f in tl.static_range(TAPS):
            b_z += b_taps[f][None, :] * b_steps[j + f]
        b_sigmoid = sigmoid(b_z)
        b_grad = load_steps(p_grad_y + i_b * s_gb, o_t + j, o_d, m_d, length, s_gl, s_gd)
        b_grad *= b_sigmoid * (1.0 + b_z * (1.0 - b_sigmoid))
        b_grad_x += b_taps[TAPS - 1 - j][None, :] * b_grad
        if j == 0:
            for f in tl.static_range(TAPS):
                tl.store(p_sums + o_d * TAPS + f, tl.sum(b_grad * b_steps[f], axis=0), mask=m_d)
            tl.store(p_sums + TAPS * channels + o_d, tl.sum(b_grad, axis=0), mask=m_d)
    p_grad_x += (i_b * length + o_t[:, None]) * channels + o_d[None, :]
    tl.store(p_grad_x, b_grad_x.to(p_grad_x.dtype.element_ty), mask=(o_t < length)[:, None] & m_d[None, :])
