"""Kernels of LayerNorm over contiguous rows: each row is read once and held in registers.

C is the power of 2 that holds the channels. All arithmetic is float32, independent of the types in memory. The number
of channels is a compile-time constant, so that the compiler knows the alignment of rows.
"""

import triton
import triton.language as tl

from mhsvm.ops.common_kernels import sigmoid


@triton.jit
def load_rows(p_x, o_lc, m_lc):
    return tl.load(p_x + o_lc, mask=m_lc, other=0.0).to(tl.float32)


@triton.jit
def standardize(b_x, m_lc, channels, eps):
    """Rows with mean 0 and variance 1, and the reciprocal (l) of their standard deviation.

    Triton's plain division and root are approximate: the mean of equal numbers would differ from them by a rounding
    error, which a variance of 0 multiplies by 1 / sqrt(eps).
    """
    b_mean = tl.div_rn(tl.sum(b_x, axis=1), channels * 1.0)
    b_centered = tl.where(m_lc, b_x - b_mean[:, None], 0.0)
    b_scale = 1.0 / tl.sqrt_rn(tl.div_rn(tl.sum(b_centered * b_centered, axis=1), channels * 1.0) + eps)
    return b_centered * b_scale[:, None], b_scale


@triton.jit
def norm_gradient(b_grad, b_x, b_weight, b_scale, channels):
    """Gradient of the norm's input; b_x is standardized, b_grad is the gradient of the norm's output."""
    b_grad *= b_weight[None, :]
    b_mean = tl.div_rn(tl.sum(b_grad, axis=1), channels * 1.0)
    b_along = tl.div_rn(tl.sum(b_grad * b_x, axis=1), channels * 1.0)
    return (b_grad - b_mean[:, None] - b_x * b_along[:, None]) * b_scale[:, None]


@triton.jit
def tile(i_tile, rows, channels, L: tl.constexpr, C: tl.constexpr):
    """Offsets and mask (l, c) of a tile."""
    o_l, o_c = i_tile * L + tl.arange(0, L).to(tl.int64), tl.arange(0, C)
    return o_l[:, None] * channels + o_c[None, :], (o_l < rows)[:, None] & (o_c < channels)[None, :]


@triton.jit
def layer_norm_fwd_kernel(
    p_x, p_weight, p_bias, p_gate, p_y, rows, eps, CHANNELS: tl.constexpr, L: tl.constexpr, C: tl.constexpr
):  # fmt: skip
    """y = norm(x), times SiLU(gate) if there is one."""
    o_c = tl.arange(0, C)
    o_lc, m_lc = tile(tl.program_id(0), rows, CHANNELS, L, C)
    b_x, _ = standardize(load_rows(p_x, o_lc, m_lc), m_lc, CHANNELS, eps)
    b_weight, b_bias = load_rows(p_weight, o_c, o_c < CHANNELS), load_rows(p_bias, o_c, o_c < CHANNELS)
    b_y = b_x * b_weight[None, :] + b_bias[None, :]
    if p_gate is not None:
        b_gate = load_rows(p_gate, o_lc, m_lc)
        b_y *= b_gate * sigmoid(b_gate)
    tl.store(p_y + o_lc, b_y.to(p_y.dtype.element_ty), mask=m_lc)


@triton.jit
def layer_norm_bwd_kernel(
    p_grad_y, p_x, p_weight, p_bias, p_gate, p_grad_x, p_grad_gate, p_sums, rows, eps,
    CHANNELS: tl.constexpr, L: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """Gradients of x and the gate, and each program's sums (2, c) for those of weight and bias."""
    o_c = tl.arange(0, C)
    b_weight = load_rows(p_weight, o_c, o_c < CHANNELS)
    b_weight_sum, b_bias_sum = tl.zeros([L, C], tl.float32), tl.zeros([L, C], tl.float32)
    for i_tile in range(tl.program_id(0), tl.cdiv(rows, L), tl.num_programs(0)):
        o_lc, m_lc = tile(i_tile, rows, CHANNELS, L, C)
        b_grad = load_rows(p_grad_y, o_lc, m_lc)
        b_x, b_scale = standardize(load_rows(p_x, o_lc, m_lc), m_lc, CHANNELS, eps)
        if p_gate is not None:
            b_gate = load_rows(p_gate, o_lc, m_lc)
            b_sigmoid = sigmoid(b_gate)
            b_bias = load_rows(p_bias, o_c, o_c < CHANNELS)
            b_derivative = b_sigmoid * (1.0 + b_gate * (1.0 - b_sigmoid))
            b_grad_gate = b_grad * (b_x * b_weight[None, :] + b_bias[None, :]) * b_derivative
            tl.store(p_grad_gate + o_lc, b_grad_gate.to(p_grad_gate.dtype.element_ty), mask=m_lc)
            b_grad *= b_gate * b_sigmoid
        b_weight_sum += b_grad * b_x
        b_bias_sum += b_grad
        b_grad_x = norm_gradient(b_grad, b_x, b_weight, b_scale, CHANNELS)
        tl.store(p_grad_x + o_lc, b_grad_x.to(p_grad_x.dtype.element_ty), mask=m_lc)
    p_program = p_sums + tl.program_id(0) * 2 * CHANNELS + o_c
    tl.store(p_program, tl.sum(b_weight_sum, axis=0), mask=o_c < CHANNELS)
    tl.store(p_program + CHANNELS, tl.sum(b_bias_sum, axis=0), mask=o_c < CHANNELS)
