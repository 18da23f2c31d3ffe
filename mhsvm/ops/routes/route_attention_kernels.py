"""Kernels of Scan Route Attention: each element of a head's plane for itself, its k routes read once.

b batch, m heads, k routes (ROUTES of them, in a tile of K, the next power of 2), l cells, d channels of a head, e
elements of a plane (l, d). y is contiguous, (b, m, k, l, d), and so is the map z, (b, l, m, d). The grid is blocks of a
plane, heads, samples.

The number of channels is handed over in units of VECTOR, a divisor of it, so that the compiler sees how many numbers
lie side by side in the map and moves as many at once. Arithmetic takes half as long as memory does:
divisions are kept few, and the number of routes is a constant.
"""

import triton
import triton.language as tl


@triton.jit
def offsets_in_routes(o_k, o_e, size, ROUTES: tl.constexpr):
    """Where the elements of the program's plane lie in the outputs of the routes, (k, e)."""
    i_plane = tl.program_id(2).to(tl.int64) * tl.num_programs(1) + tl.program_id(1)
    return i_plane * ROUTES * size + (o_k[:, None] * size + o_e[None, :])


@triton.jit
def offsets_in_map(o_e, size, channels):
    """Where the elements (e) of the program's plane lie in the map."""
    heads = tl.num_programs(1)
    o_plane = tl.program_id(2).to(tl.int64) * heads * size + tl.program_id(1) * channels
    return o_plane + (o_e // channels * (heads * channels) + o_e % channels)


@triton.jit
def measure(b_y, m_k, ROUTES: tl.constexpr, EPSILON: tl.constexpr):
    """Minimum, distances from the mean (k, e), deviation, 1 / (mean distance from the minimum + EPSILON)."""
    b_low = tl.min(tl.where(m_k, b_y, float("inf")), axis=0)
    b_above = tl.where(m_k, b_y - b_low[None, :], 0.0)
    b_mean = tl.sum(b_above, axis=0) * (1.0 / ROUTES)
    b_centred = tl.where(m_k, b_above - b_mean[None, :], 0.0)
    b_deviation = tl.sqrt(tl.sum(b_centred * b_centred, axis=0) * (1.0 / (ROUTES - 1)))
    return b_low, b_centred, b_deviation, 1.0 / (b_mean + EPSILON)


@triton.jit
def head_threshold(p_thresholds, threshold):
    return threshold if p_thresholds is None else tl.load(p_thresholds + tl.program_id(1))


# Sizes that differ from layer to layer are not compiled in, but for the alignment of a plane.
@triton.jit(do_not_specialize=["units"])
def attend_kernel(
    p_y, p_thresholds, p_z, size, units, threshold, power,
    GATE: tl.constexpr, EPSILON: tl.constexpr,
    ROUTES: tl.constexpr, K: tl.constexpr, VECTOR: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Sum over the routes, times the gate of their variation."""
    o_k, o_e = tl.arange(0, K), tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    m_k, m_e = (o_k < ROUTES)[:, None], o_e < size
    o_y = offsets_in_routes(o_k, o_e, size, ROUTES)
    b_y = tl.load(p_y + o_y, mask=m_k & m_e[None, :], other=0.0)
    _, _, b_deviation, b_inverse = measure(b_y, m_k, ROUTES, EPSILON)
    b_threshold = head_threshold(p_thresholds, threshold)
    b_weight, _ = GATE(b_deviation * b_inverse, b_threshold, power)
    b_z = tl.sum(b_y, axis=0) * b_weight
    o_z = offsets_in_map(o_e, size, units * VECTOR)
    tl.store(p_z + o_z, b_z.to(p_z.dtype.element_ty), mask=m_e)


@triton.jit(do_not_specialize=["units"])
def differentiate_kernel(
    p_y, p_thresholds, p_dz, p_dy, p_dthresholds, size, units, threshold, power,
    GATE: tl.constexpr, EPSILON: tl.constexpr,
    ROUTES: tl.constexpr, K: tl.constexpr, VECTOR: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Gradients of `attend_kernel`: dy is laid out like y, that of a head's threshold one sum a program."""
    o_k, o_e = tl.arange(0, K), tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    m_k, m_e = (o_k < ROUTES)[:, None], o_e < size
    o_y = offsets_in_routes(o_k, o_e, size, ROUTES)
    b_y = tl.load(p_y + o_y, mask=m_k & m_e[None, :], other=0.0)
    o_z = offsets_in_map(o_e, size, units * VECTOR)
    b_dz = tl.load(p_dz + o_z, mask=m_e, other=0.0).to(tl.float32)

    b_low, b_centred, b_deviation, b_inverse = measure(b_y, m_k, ROUTES, EPSILON)
    b_threshold = head_threshold(p_thresholds, threshold)
    b_cv = b_deviation * b_inverse
    b_weight, b_slope = GATE(b_cv, b_threshold, power)
    b_dcv = b_dz * tl.sum(b_y, axis=0) * b_slope
    b_ddeviation = b_dcv * b_inverse
    b_dmean = -b_ddeviation * b_cv
    # A deviation of 0 has slope 0, and routes that share the minimum share its gradient, as torch has it.
    flat = b_deviation == 0
    b_dcentred = tl.where(flat, 0.0, b_ddeviation * (1.0 / (ROUTES - 1)) / tl.where(flat, 1.0, b_deviation))
    least = m_k & (b_y == b_low[None, :])
    b_ties = tl.sum(least.to(tl.float32), axis=0)
    b_dy = (b_dz * b_weight + b_dmean * (1.0 / ROUTES))[None, :] + b_dcentred[None, :] * b_centred
    b_dy -= tl.where(least, (b_dmean / b_ties)[None, :], 0.0)
    tl.store(p_dy + o_y, b_dy, mask=m_k & m_e[None, :])
    if p_dthresholds is not None:
        i_plane = tl.program_id(2) * tl.num_programs(1) + tl.program_id(1)
        tl.store(p_dthresholds + i_plane * tl.num_programs(0) + tl.program_id(0), -tl.sum(b_dcv))
