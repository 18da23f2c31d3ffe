"""Kernels of the norms before and after parallel branches.

A tile is L cells of one sample. Its C columns are the channels, each branch padded to V of them, a power of 2. A map
has strides of the batch (b), a channel (c) and a cell (l). Sequences are (b*p, l, v) and contiguous. All arithmetic is
float32, independent of the types in memory.

The parameters are a row (2c + PAD): weight, bias, the scale of the residual, zeros. A program of a backward kernel
writes a row of partial sums in this layout; a program of the split adds the row of the join.
"""

import triton
import triton.language as tl

from mhsvm.ops.fused.layer_norm_kernels import load_rows, norm_gradient, standardize

PAD = tl.constexpr(4)


@triton.jit
def column_ids(branches, width, V: tl.constexpr, C: tl.constexpr):
    """For each column: the branch, the channel of the branch, the channel of the map, and the mask of the channels."""
    o_p, o_v = tl.arange(0, C) // V, tl.arange(0, C) % V
    return o_p, o_v, o_p * width + o_v, (o_p < branches) & (o_v < width)


@triton.jit
def tile_ids(i_tile, length, L: tl.constexpr):
    """Sample and cells (l) of a tile."""
    num_tiles = tl.cdiv(length, L)
    return (i_tile // num_tiles).to(tl.int64), i_tile % num_tiles * L + tl.arange(0, L)


@triton.jit
def sequence_offsets(i_b, o_l, o_p, o_v, length, branches, width):
    """Offsets of a tile's numbers (l, c) in the branches' sequences."""
    o_branch = (i_b * branches + o_p) * length * width + o_v
    return o_branch[None, :] + (o_l * width)[:, None]


@triton.jit
def load_sums(p_row, o_c, m_c, channels):
    """Weight (c), bias (c) and scale of a row of parameters."""
    b_weight, b_bias = load_rows(p_row, o_c, m_c), load_rows(p_row + channels, o_c, m_c)
    return b_weight, b_bias, tl.load(p_row + 2 * channels).to(tl.float32)


@triton.jit
def store_sums(p_row, o_c, m_c, channels, b_weight, b_bias, scale):
    """Store a row of parameters, the reverse of `load_sums`, with zeros after it."""
    tl.store(p_row + o_c, b_weight, mask=m_c)
    tl.store(p_row + channels + o_c, b_bias, mask=m_c)
    o_pad = tl.arange(0, PAD)
    tl.store(p_row + 2 * channels + o_pad, tl.where(o_pad == 0, scale, 0.0))


@triton.jit
def split_norm_fwd_kernel(
    p_x, p_weight, p_bias, p_scale, p_parts, p_row, length, branches, width, eps, s_b, s_c, s_l,
    L: tl.constexpr, V: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """Sequences of the norm of a map; the first program also writes the row of parameters."""
    channels = branches * width
    o_p, o_v, o_c, m_c = column_ids(branches, width, V, C)
    i_b, o_l = tile_ids(tl.program_id(0), length, L)
    m_lc = (o_l < length)[:, None] & m_c[None, :]
    b_x = load_rows(p_x + i_b * s_b, o_l[:, None] * s_l + o_c[None, :] * s_c, m_lc)
    b_x, _ = standardize(b_x, m_lc, channels, eps)
    b_weight, b_bias = load_rows(p_weight, o_c, m_c), load_rows(p_bias, o_c, m_c)
    b_y = b_x * b_weight[None, :] + b_bias[None, :]
    p_y = p_parts + sequence_offsets(i_b, o_l, o_p, o_v, length, branches, width)
    tl.store(p_y, b_y.to(p_parts.dtype.element_ty), mask=m_lc)
    if tl.program_id(0) == 0:
        store_sums(p_row, o_c, m_c, channels, b_weight, b_bias, tl.load(p_scale).to(tl.float32))


@triton.jit
def split_norm_bwd_kernel(
    p_grad_parts, p_grad_residual, p_grad_row, p_x, p_weight, p_grad_x, p_sums, num_tiles, length, branches, width,
    eps, s_b, s_c, s_l, s_grad_b, s_grad_c, s_grad_l, L: tl.constexpr, V: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """Gradient of the map, and each program's sums, including those of the join; the given gradients may be None."""
    channels = branches * width
    o_p, o_v, o_c, m_c = column_ids(branches, width, V, C)
    b_weight = load_rows(p_weight, o_c, m_c)
    b_weight_sum, b_bias_sum = tl.zeros([L, C], tl.float32), tl.zeros([L, C], tl.float32)
    for i_tile in range(tl.program_id(0), num_tiles, tl.num_programs(0)):
        i_b, o_l = tile_ids(i_tile, length, L)
        m_lc = (o_l < length)[:, None] & m_c[None, :]
        b_x = load_rows(p_x + i_b * s_b, o_l[:, None] * s_l + o_c[None, :] * s_c, m_lc)
        o_parts = sequence_offsets(i_b, o_l, o_p, o_v, length, branches, width)
        b_grad = tl.zeros([L, C], tl.float32)
        if p_grad_parts is not None:
            b_grad += load_rows(p_grad_parts, o_parts, m_lc)
        if p_grad_residual is not None:
            b_grad += load_rows(p_grad_residual, o_parts, m_lc)
        b_x, b_scale = standardize(b_x, m_lc, channels, eps)
        b_weight_sum += b_grad * b_x
        b_bias_sum += b_grad
        b_grad_x = norm_gradient(b_grad, b_x, b_weight, b_scale, channels)
        p_grad = p_grad_x + i_b * s_grad_b + o_l[:, None] * s_grad_l + o_c[None, :] * s_grad_c
        tl.store(p_grad, b_grad_x.to(p_grad_x.dtype.element_ty), mask=m_lc)
    o_row = tl.program_id(0) * (2 * channels + PAD)
    b_weight, b_bias, scale = tl.sum(b_weight_sum, axis=0), tl.sum(b_bias_sum, axis=0), 0.0
    if p_grad_row is not None:
        b_join_weight, b_join_bias, scale = load_sums(p_grad_row + o_row, o_c, m_c, channels)
        b_weight += b_join_weight
        b_bias += b_join_bias
    store_sums(p_sums + o_row, o_c, m_c, channels, b_weight, b_bias, scale)


@triton.jit
def join_norm_fwd_kernel(
    p_mixed, p_residual, p_row, p_y, length, branches, width, eps,
    L: tl.constexpr, V: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """Rows (b, l, c) of the norm of mixed + scale * residual."""
    channels = branches * width
    o_p, o_v, o_c, m_c = column_ids(branches, width, V, C)
    b_weight, b_bias, scale = load_sums(p_row, o_c, m_c, channels)
    i_b, o_l = tile_ids(tl.program_id(0), length, L)
    m_lc = (o_l < length)[:, None] & m_c[None, :]
    o_parts = sequence_offsets(i_b, o_l, o_p, o_v, length, branches, width)
    b_x = load_rows(p_mixed, o_parts, m_lc) + scale * load_rows(p_residual, o_parts, m_lc)
    b_x, _ = standardize(b_x, m_lc, channels, eps)
    b_y = b_x * b_weight[None, :] + b_bias[None, :]
    p_rows = p_y + (i_b * length + o_l[:, None]) * channels + o_c[None, :]
    tl.store(p_rows, b_y.to(p_y.dtype.element_ty), mask=m_lc)


@triton.jit
def join_norm_bwd_kernel(
    p_grad_y, p_mixed, p_residual, p_row, p_grad_mixed, p_grad_residual, p_sums, num_tiles, length, branches, width,
    eps, L: tl.constexpr, V: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """Gradients of mixed and residual, and each program's sums."""
    channels = branches * width
    o_p, o_v, o_c, m_c = column_ids(branches, width, V, C)
    b_weight, _, scale = load_sums(p_row, o_c, m_c, channels)
    b_weight_sum, b_bias_sum = tl.zeros([L, C], tl.float32), tl.zeros([L, C], tl.float32)
    b_scale_sum = tl.zeros([L, C], tl.float32)
    for i_tile in range(tl.program_id(0), num_tiles, tl.num_programs(0)):
        i_b, o_l = tile_ids(i_tile, length, L)
        m_lc = (o_l < length)[:, None] & m_c[None, :]
        o_parts = sequence_offsets(i_b, o_l, o_p, o_v, length, branches, width)
        b_residual = load_rows(p_residual, o_parts, m_lc)
        b_x = load_rows(p_mixed, o_parts, m_lc) + scale * b_residual
        b_grad = load_rows(p_grad_y, (i_b * length + o_l[:, None]) * channels + o_c[None, :], m_lc)
        b_x, b_scale = standardize(b_x, m_lc, channels, eps)
        b_weight_sum += b_grad * b_x
        b_bias_sum += b_grad
        b_grad = norm_gradient(b_grad, b_x, b_weight, b_scale, channels)
        b_scale_sum += b_grad * b_residual
        tl.store(p_grad_mixed + o_parts, b_grad.to(p_grad_mixed.dtype.element_ty), mask=m_lc)
        tl.store(p_grad_residual + o_parts, (scale * b_grad).to(p_grad_residual.dtype.element_ty), mask=m_lc)
    p_row_sums = p_sums + tl.program_id(0) * (2 * channels + PAD)
    b_weight, b_bias = tl.sum(b_weight_sum, axis=0), tl.sum(b_bias_sum, axis=0)
    store_sums(p_row_sums, o_c, m_c, channels, b_weight, b_bias, tl.sum(tl.sum(b_scale_sum, axis=1), axis=0))
