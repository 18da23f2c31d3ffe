"""Kernels of bias and SiLU: a tile is p pixels (P) of a block of c channels (C), which lie side by side in memory.

Numbers are float32 in registers, whatever is loaded and stored. The blocks' programs of a tile stand side by side, so
that what is read at one time lies together.
"""

import triton
import triton.language as tl

from mhsvm.ops.common_kernels import sigmoid


@triton.jit
def load_block(p_bias, channels, C: tl.constexpr):
    """A program's channels (c), which of them there are, and their bias."""
    o_c = tl.program_id(0) % tl.cdiv(channels, C) * C + tl.arange(0, C)
    return o_c, o_c < channels, tl.load(p_bias + o_c, mask=o_c < channels, other=0.0).to(tl.float32)


@triton.jit
def tile(i_tile, o_c, m_c, pixels, channels, P: tl.constexpr):
    """Offsets and mask (p, c) of a tile's numbers."""
    o_p = i_tile * P + tl.arange(0, P).to(tl.int64)
    return o_p[:, None] * channels + o_c[None, :], (o_p < pixels)[:, None] & m_c[None, :]


@triton.jit
def load_sum(p_x, b_bias, o_pc, m_pc):
    """z = x + bias, and its sigmoid."""
    b_z = tl.load(p_x + o_pc, mask=m_pc, other=0.0).to(tl.float32) + b_bias[None, :]
    return b_z, sigmoid(b_z)


@triton.jit(do_not_specialize=["pixels"])
def activate_kernel(p_x, p_bias, p_y, pixels, channels, P: tl.constexpr, C: tl.constexpr):
    """y = SiLU(x + bias)."""
    o_c, m_c, b_bias = load_block(p_bias, channels, C)
    o_pc, m_pc = tile(tl.program_id(0) // tl.cdiv(channels, C), o_c, m_c, pixels, channels, P)
    b_z, b_share = load_sum(p_x, b_bias, o_pc, m_pc)
    tl.store(p_y + o_pc, (b_z * b_share).to(p_y.dtype.element_ty), mask=m_pc)


@triton.jit(do_not_specialize=["pixels"])
def differentiate_kernel(
    p_grad_y, p_x, p_bias, p_grad_x, p_sums, pixels, channels, P: tl.constexpr, C: tl.constexpr
):  # fmt: skip
    """Gradient of x, and each program's sums for that of the bias, (parts, c)."""
    o_c, m_c, b_bias = load_block(p_bias, channels, C)
    num_blocks = tl.cdiv(channels, C)
    i_part, num_parts = tl.program_id(0) // num_blocks, tl.num_programs(0) // num_blocks
    b_sum = tl.zeros([P, C], tl.float32)
    for i_tile in range(i_part, tl.cdiv(pixels, P), num_parts):
        o_pc, m_pc = tile(i_tile, o_c, m_c, pixels, channels, P)
        b_z, b_share = load_sum(p_x, b_bias, o_pc, m_pc)
        b_grad = tl.load(p_grad_y + o_pc, mask=m_pc, other=0.0).to(tl.float32)
        b_grad *= b_share * (1.0 + b_z * (1.0 - b_share))
        tl.store(p_grad_x + o_pc, b_grad.to(p_grad_x.dtype.element_ty), mask=m_pc)
        b_sum += b_grad
    tl.store(p_sums + i_part * channels + o_c, tl.sum(b_sum, axis=0), mask=m_c)
