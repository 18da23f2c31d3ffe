"""Kernels of Scan Route Attention, elementwise: a program reads the k routes of a block of a head's plane once.

y (b, m, k, l, d) and the map z (b, l, m, d) are contiguous. A plane (l, d) has `size` elements i. The axes of the grid
are blocks of a plane, heads, samples. K is the power of 2 that holds the ROUTES routes. Letters are those of
`mhsvm.ops`.

The number of channels is given in vectors of VECTOR, so that the compiler knows how many numbers are contiguous in the
map and can load them at once. Arithmetic takes half as long as memory access, so there are few divisions, and the
number of routes is a constant.
"""

import triton
import triton.language as tl


@triton.jit
def offsets_in_routes(o_k, o_i, size, ROUTES: tl.constexpr):
    """Offsets of elements of the program's plane in the outputs of the routes, (k, i)."""
    i_plane = tl.program_id(2).to(tl.int64) * tl.num_programs(1) + tl.program_id(1)
    return i_plane * ROUTES * size + (o_k[:, None] * size + o_i[None, :])


@triton.jit
def offsets_in_map(o_i, size, channels):
    """Offsets of elements (i) of the program's plane in the map."""
    heads = tl.num_programs(1)
    o_plane = tl.program_id(2).to(tl.int64) * heads * size + tl.program_id(1) * channels
    return o_plane + (o_i // channels * (heads * channels) + o_i % channels)


@triton.jit
def statistics(b_y, m_k, ROUTES: tl.constexpr, EPS: tl.constexpr):
    """Minimum, distances from the mean (k, i), deviation, 1 / (mean distance from the minimum + EPS)."""
    b_min = tl.min(tl.where(m_k, b_y, float("inf")), axis=0)
    b_above = tl.where(m_k, b_y - b_min[None, :], 0.0)
    b_mean = tl.sum(b_above, axis=0) * (1.0 / ROUTES)
    b_centered = tl.where(m_k, b_above - b_mean[None, :], 0.0)
    b_deviation = tl.sqrt(tl.sum(b_centered * b_centered, axis=0) * (1.0 / (ROUTES - 1)))
    return b_min, b_centered, b_deviation, 1.0 / (b_mean + EPS)


@triton.jit
def head_threshold(p_thresholds, threshold):
    return threshold if p_thresholds is None else tl.load(p_thresholds + tl.program_id(1))


# Sizes that differ between layers are not specialized, except for the alignment of a plane.
@triton.jit(do_not_specialize=["vectors"])
def route_attention_fwd_kernel(
    p_y, p_thresholds, p_z, size, vectors, threshold, power,
    GATE: tl.constexpr, EPS: tl.constexpr,
    ROUTES: tl.constexpr, K: tl.constexpr, VECTOR: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The sum over the routes, times the gate of their variation."""
    o_k, o_i = tl.arange(0, K), tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    m_k, m_i = (o_k < ROUTES)[:, None], o_i < size
    o_y = offsets_in_routes(o_k, o_i, size, ROUTES)
    b_y = tl.load(p_y + o_y, mask=m_k & m_i[None, :], other=0.0)
    _, _, b_deviation, b_inverse = statistics(b_y, m_k, ROUTES, EPS)
    b_threshold = head_threshold(p_thresholds, threshold)
    b_weight, _ = GATE(b_deviation * b_inverse, b_threshold, power)
    b_z = tl.sum(b_y, axis=0) * b_weight
    o_z = offsets_in_map(o_i, size, vectors * VECTOR)
    tl.store(p_z + o_z, b_z.to(p_z.dtype.element_ty), mask=m_i)


@triton.jit(do_not_specialize=["vectors"])
def route_attention_bwd_kernel(
    p_y, p_thresholds, p_dz, p_dy, p_dthresholds, size, vectors, threshold, power,
    GATE: tl.constexpr, EPS: tl.constexpr,
    ROUTES: tl.constexpr, K: tl.constexpr, VECTOR: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Gradients of `route_attention_fwd_kernel`: dy is contiguous like y; that of a threshold is one sum a program."""
    o_k, o_i = tl.arange(0, K), tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    m_k, m_i = (o_k < ROUTES)[:, None], o_i < size
    o_y = offsets_in_routes(o_k, o_i, size, ROUTES)
    b_y = tl.load(p_y + o_y, mask=m_k & m_i[None, :], other=0.0)
    o_z = offsets_in_map(o_i, size, vectors * VECTOR)
    b_dz = tl.load(p_dz + o_z, mask=m_i, other=0.0).to(tl.float32)

    b_min, b_centered, b_deviation, b_inverse = statistics(b_y, m_k, ROUTES, EPS)
    b_threshold = head_threshold(p_thresholds, threshold)
    b_cv = b_deviation * b_inverse
    b_weight, b_derivative = GATE(b_cv, b_threshold, power)
    b_dcv = b_dz * tl.sum(b_y, axis=0) * b_derivative
    b_ddeviation = b_dcv * b_inverse
    b_dmean = -b_ddeviation * b_cv
    # As in torch, a deviation of 0 has derivative 0, and routes that share the minimum share its gradient.
    flat = b_deviation == 0
    b_dcentered = tl.where(flat, 0.0, b_ddeviation * (1.0 / (ROUTES - 1)) / tl.where(flat, 1.0, b_deviation))
    least = m_k & (b_y == b_min[None, :])
    b_ties = tl.sum(least.to(tl.float32), axis=0)
    b_dy = (b_dz * b_weight + b_dmean * (1.0 / ROUTES))[None, :] + b_dcentered[None, :] * b_centered
    b_dy -= tl.where(least, (b_dmean / b_ties)[None, :], 0.0)
    tl.store(p_dy + o_y, b_dy, mask=m_k & m_i[None, :])
    if p_dthresholds is not None:
        i_plane = tl.program_id(2) * tl.num_programs(1) + tl.program_id(1)
        tl.store(p_dthresholds + i_plane * tl.num_programs(0) + tl.program_id(0), -tl.sum(b_dcv))
