"""Kernels of binary cross-entropy and Dice loss. Maps are contiguous; t targets, p = sigmoid(x), q = 1 - p.

A map's Dice loss is E / D with E = sum(p (1 - t) + q t) and D = sum(p + t) + smooth: the same number as
1 - (2 sum(p t) + smooth) / D, but without its loss of digits where the prediction is good.
"""

import triton
import triton.language as tl

from mhsvm.ops.common_kernels import LOG2_E, softplus


@triton.jit
def load_pixels(p_x, p_t, o_p, m_p):
    """x, t, p and q; neither p nor q is a difference, which would lose the smaller one's digits."""
    b_x = tl.load(p_x + o_p, mask=m_p, other=0.0).to(tl.float32)
    b_t = tl.load(p_t + o_p, mask=m_p, other=0.0).to(tl.float32)
    b_e = tl.exp2(-tl.abs(b_x) * LOG2_E)
    b_more, b_less = 1.0 / (1.0 + b_e), b_e / (1.0 + b_e)
    return b_x, b_t, tl.where(b_x < 0.0, b_less, b_more), tl.where(b_x < 0.0, b_more, b_less)


@triton.jit
def sum_kernel(p_x, p_t, p_sums, pixels, chunk, chunks, TILE: tl.constexpr):
    """Cross-entropy, E and D without `smooth` of a chunk of a map's pixels, (maps, chunks, 3)."""
    i_c, i_m = tl.program_id(0), tl.program_id(1).to(tl.int64)
    p_x += i_m * pixels
    p_t += i_m * pixels
    b_nats, b_apart, b_size = tl.zeros([TILE], tl.float32), tl.zeros([TILE], tl.float32), tl.zeros([TILE], tl.float32)
    for i_p in range(i_c * chunk, tl.minimum(i_c * chunk + chunk, pixels), TILE):
        o_p = i_p + tl.arange(0, TILE)
        m_p = o_p < pixels
        b_x, b_t, b_p, b_q = load_pixels(p_x, p_t, o_p, m_p)
        b_nats += tl.where(m_p, tl.maximum(b_x, 0.0) - b_x * b_t + softplus(-tl.abs(b_x)), 0.0)
        b_apart += tl.where(m_p, b_p * (1.0 - b_t) + b_q * b_t, 0.0)
        b_size += tl.where(m_p, b_p + b_t, 0.0)
    p_sums += (i_m * chunks + i_c) * 3
    tl.store(p_sums, tl.sum(b_nats, axis=0))
    tl.store(p_sums + 1, tl.sum(b_apart, axis=0))
    tl.store(p_sums + 2, tl.sum(b_size, axis=0))


@triton.jit
def finish_kernel(
    p_sums, p_slopes, p_loss, maps, chunks, bce_scale, dice_scale, smooth, MAPS: tl.constexpr, CHUNKS: tl.constexpr
):  # fmt: skip
    """The loss, and of each map (maps, 2) the weighted slopes of E / D in E and in -D."""
    o_c = tl.arange(0, CHUNKS)
    b_loss = tl.zeros([MAPS], tl.float32)
    for i_m in range(0, maps, MAPS):
        o_m = i_m + tl.arange(0, MAPS)
        m_m = o_m < maps
        m_mc = m_m[:, None] & (o_c < chunks)[None, :]
        p_mc = p_sums + (o_m[:, None] * chunks + o_c[None, :]) * 3
        b_nats = tl.sum(tl.load(p_mc, mask=m_mc, other=0.0), axis=1)
        b_apart = tl.sum(tl.load(p_mc + 1, mask=m_mc, other=0.0), axis=1)
        b_size = tl.sum(tl.load(p_mc + 2, mask=m_mc, other=0.0), axis=1) + smooth
        b_dice = b_apart / b_size
        b_loss += tl.where(m_m, b_nats * bce_scale + b_dice * dice_scale, 0.0)
        tl.store(p_slopes + o_m * 2, dice_scale / b_size, mask=m_m)
        tl.store(p_slopes + o_m * 2 + 1, b_dice * dice_scale / b_size, mask=m_m)
    tl.store(p_loss, tl.sum(b_loss, axis=0))


@triton.jit
def differentiate_kernel(p_dloss, p_x, p_t, p_slopes, p_dx, pixels, bce_scale, TILE: tl.constexpr):
    """Gradient of a tile of a map's logits."""
    i_m = tl.program_id(1).to(tl.int64)
    o_p = tl.program_id(0) * TILE + tl.arange(0, TILE)
    m_p = o_p < pixels
    _, b_t, b_p, b_q = load_pixels(p_x + i_m * pixels, p_t + i_m * pixels, o_p, m_p)
    in_apart, in_size = tl.load(p_slopes + i_m * 2), tl.load(p_slopes + i_m * 2 + 1)
    b_dx = bce_scale * (b_p * (1.0 - b_t) - b_q * b_t)
    b_dx += (in_apart * (1.0 - 2.0 * b_t) - in_size) * b_p * b_q
    b_dx *= tl.load(p_dloss)
    tl.store(p_dx + i_m * pixels + o_p, b_dx.to(p_dx.dtype.element_ty), mask=m_p)
