"""Kernels of binary cross-entropy and Dice loss. Maps are contiguous.

For logits x and targets t, p = sigmoid(x) and q = 1 - p. The Dice loss of a map is E / D with
E = sum(p (1 - t) + q t) and D = sum(p + t) + smooth. It equals 1 - (2 sum(p t) + smooth) / D, and loses no digits for
good predictions.
"""

import triton
import triton.language as tl

from mhsvm.ops.common_kernels import LOG2_E, softplus


@triton.jit
def load_logits(p_x, p_t, o_l, m_l):
    """x, t, p and q. Neither p nor q is computed as a difference, which would lose digits of the smaller one."""
    b_x = tl.load(p_x + o_l, mask=m_l, other=0.0).to(tl.float32)
    b_t = tl.load(p_t + o_l, mask=m_l, other=0.0).to(tl.float32)
    b_e = tl.exp2(-tl.abs(b_x) * LOG2_E)
    b_more, b_less = 1.0 / (1.0 + b_e), b_e / (1.0 + b_e)
    return b_x, b_t, tl.where(b_x < 0.0, b_less, b_more), tl.where(b_x < 0.0, b_more, b_less)


@triton.jit
def bce_dice_fwd_kernel_sums(p_x, p_t, p_sums, cells, chunk, chunks, L: tl.constexpr):
    """Sums over a chunk of cells: cross-entropy, E, and D without `smooth`, (maps, s, 3)."""
    i_s, i_map = tl.program_id(0), tl.program_id(1).to(tl.int64)
    p_x += i_map * cells
    p_t += i_map * cells
    b_bce, b_error, b_size = tl.zeros([L], tl.float32), tl.zeros([L], tl.float32), tl.zeros([L], tl.float32)
    for i_l in range(i_s * chunk, tl.minimum(i_s * chunk + chunk, cells), L):
        o_l = i_l + tl.arange(0, L)
        m_l = o_l < cells
        b_x, b_t, b_p, b_q = load_logits(p_x, p_t, o_l, m_l)
        b_bce += tl.where(m_l, tl.maximum(b_x, 0.0) - b_x * b_t + softplus(-tl.abs(b_x)), 0.0)
        b_error += tl.where(m_l, b_p * (1.0 - b_t) + b_q * b_t, 0.0)
        b_size += tl.where(m_l, b_p + b_t, 0.0)
    p_sums += (i_map * chunks + i_s) * 3
    tl.store(p_sums, tl.sum(b_bce, axis=0))
    tl.store(p_sums + 1, tl.sum(b_error, axis=0))
    tl.store(p_sums + 2, tl.sum(b_size, axis=0))


@triton.jit
def bce_dice_fwd_kernel_loss(
    p_sums, p_derivatives, p_loss, maps, chunks, bce_scale, dice_scale, smooth, MAPS: tl.constexpr, S: tl.constexpr
):  # fmt: skip
    """The loss, and for each map the weighted derivatives of E / D by E and by -D, (maps, 2)."""
    o_s = tl.arange(0, S)
    b_loss = tl.zeros([MAPS], tl.float32)
    for i_map in range(0, maps, MAPS):
        o_map = i_map + tl.arange(0, MAPS)
        m_map = o_map < maps
        m_maps = m_map[:, None] & (o_s < chunks)[None, :]
        p_maps = p_sums + (o_map[:, None] * chunks + o_s[None, :]) * 3
        b_bce = tl.sum(tl.load(p_maps, mask=m_maps, other=0.0), axis=1)
        b_error = tl.sum(tl.load(p_maps + 1, mask=m_maps, other=0.0), axis=1)
        b_size = tl.sum(tl.load(p_maps + 2, mask=m_maps, other=0.0), axis=1) + smooth
        b_dice = b_error / b_size
        b_loss += tl.where(m_map, b_bce * bce_scale + b_dice * dice_scale, 0.0)
        tl.store(p_derivatives + o_map * 2, dice_scale / b_size, mask=m_map)
        tl.store(p_derivatives + o_map * 2 + 1, b_dice * dice_scale / b_size, mask=m_map)
    tl.store(p_loss, tl.sum(b_loss, axis=0))


@triton.jit
def bce_dice_bwd_kernel(p_grad_loss, p_x, p_t, p_derivatives, p_grad_x, cells, bce_scale, L: tl.constexpr):
    """Gradient of a tile of a map's logits."""
    i_map = tl.program_id(1).to(tl.int64)
    o_l = tl.program_id(0) * L + tl.arange(0, L)
    m_l = o_l < cells
    _, b_t, b_p, b_q = load_logits(p_x + i_map * cells, p_t + i_map * cells, o_l, m_l)
    by_error, by_size = tl.load(p_derivatives + i_map * 2), tl.load(p_derivatives + i_map * 2 + 1)
    b_grad_x = bce_scale * (b_p * (1.0 - b_t) - b_q * b_t)
    b_grad_x += (by_error * (1.0 - 2.0 * b_t) - by_size) * b_p * b_q
    b_grad_x *= tl.load(p_grad_loss)
    tl.store(p_grad_x + i_map * cells + o_l, b_grad_x.to(p_grad_x.dtype.element_ty), mask=m_l)
