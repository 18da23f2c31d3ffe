"""Kernels that add a bias and apply SiLU to channels-last maps: a tile is L cells of a block of C channels.

All arithmetic is float32. Consecutive programs compute the blocks of one tile, so that programs that run at the same
time read nearby memory.
"""

import triton
import triton.language as tl

from mhsvm.ops.common_kernels import sigmoid


@triton.jit
def load_block(p_bias, channels, C: tl.constexpr):
    """A program's channels (c), their mask, and their bias."""
    o_c = tl.program_id(0) % tl.cdiv(channels, C) * C + tl.arange(0, C)
    return o_c, o_c < channels, tl.load(p_bias + o_c, mask=o_c < channels, other=0.0).to(tl.float32)


@triton.jit
def tile(i_tile, o_c, m_c, cells, channels, L: tl.constexpr):
    """Offsets and mask (l, c) of a tile."""
    o_l = i_tile * L + tl.arange(0, L).to(tl.int64)
    return o_l[:, None] * channels + o_c[None, :], (o_l < cells)[:, None] & m_c[None, :]


@triton.jit
def load_sum(p_x, b_bias, o_lc, m_lc):
    """z = x + bias, and its sigmoid."""
    b_z = tl.load(p_x + o_lc, mask=m_lc, other=0.0).to(tl.float32) + b_bias[None, :]
    return b_z, sigmoid(b_z)


@triton.jit(do_not_specialize=["cells"])
def conv2d_silu_fwd_kernel(p_x, p_bias, p_y, cells, channels, L: tl.constexpr, C: tl.constexpr):
    """y = SiLU(x + bias)."""
    o_c, m_c, b_bias = load_block(p_bias, channels, C)
    o_lc, m_lc = tile(tl.program_id(0) // tl.cdiv(channels, C), o_c, m_c, cells, channels, L)
    b_z, b_sigmoid = load_sum(p_x, b_bias, o_lc, m_lc)
    tl.store(p_y + o_lc, (b_z * b_sigmoid).to(p_y.dtype.element_ty), mask=m_lc)


@triton.jit(do_not_specialize=["cells"])
def conv2d_silu_bwd_kernel(
    p_grad_y, p_x, p_bias, p_grad_x, p_sums, cells, channels, L: tl.constexpr, C: tl.constexpr
):  # fmt: skip
    """Gradient of x, and each program's sums for the gradient of the bias, (parts, c)."""
    o_c, m_c, b_bias = load_block(p_bias, channels, C)
    num_blocks = tl.cdiv(channels, C)
    i_part, num_parts = tl.program_id(0) // num_blocks, tl.num_programs(0) // num_blocks
    b_sum = tl.zeros([L, C], tl.float32)
    for i_tile in range(i_part, tl.cdiv(cells, L), num_parts):
        o_lc, m_lc = tile(i_tile, o_c, m_c, cells, channels, L)
        b_z, b_sigmoid = load_sum(p_x, b_bias, o_lc, m_lc)
        b_grad = tl.load(p_grad_y + o_lc, mask=m_lc, other=0.0).to(tl.float32)
        b_grad *= b_sigmoid * (1.0 + b_z * (1.0 - b_sigmoid))
        tl.store(p_grad_x + o_lc, b_grad.to(p_grad_x.dtype.element_ty), mask=m_lc)
        b_sum += b_grad
    tl.store(p_sums + i_part * channels + o_c, tl.sum(b_sum, axis=0), mask=m_c)
