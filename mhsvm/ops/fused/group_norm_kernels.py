"""Kernels of GroupNorm followed by resizing of the map, GELU and a skip connection.

G and E are the powers of 2 that hold the groups and the channels of one; a tile has c = G * E rows. A map has strides
of the batch (b), a channel (c) and a cell (l). Each chunk of cells (s) writes partial results, which every later
program adds in the same order; no result depends on the order in which programs run.
"""

import triton
import triton.language as tl

from mhsvm.ops.common_kernels import LOG2_E


@triton.jit
def group_channels(groups, width, G: tl.constexpr, E: tl.constexpr):
    """Channel of each row (c) of a tile, and the mask of the channels."""
    o_c = tl.arange(0, G * E)
    return o_c // E * width + o_c % E, (o_c % E < width) & (o_c // E < groups)


@triton.jit
def sum_groups(b_c, G: tl.constexpr, E: tl.constexpr):
    """Sums (g) over the channels of each group, of values (c)."""
    return tl.sum(tl.reshape(b_c, [G, E]), axis=1)


@triton.jit
def to_channels(b_g, G: tl.constexpr, E: tl.constexpr):
    """Values (g) of groups, repeated for the channels (c) of each."""
    return tl.reshape(tl.broadcast_to(b_g[:, None], [G, E]), [G * E])


@triton.jit
def load_map(p_x, o_c, o_l, m_cl, s_c, s_l):
    return tl.load(p_x + o_c[:, None] * s_c + o_l[None, :] * s_l, mask=m_cl, other=0.0).to(tl.float32)


@triton.jit
def group_norm_fwd_kernel_moments(
    p_x, p_moments, cells, chunk, groups, width, s_b, s_c, s_l,
    G: tl.constexpr, E: tl.constexpr, L: tl.constexpr, S: tl.constexpr,
):  # fmt: skip
    """Mean and sum of squared distances from it, (b, s, 2, g), of each chunk of cells and group."""
    o_c, m_c = group_channels(groups, width, G, E)
    p_x += tl.program_id(1).to(tl.int64) * s_b
    start = tl.program_id(0) * chunk
    b_mean, b_squares, num = tl.zeros([G], tl.float32), tl.zeros([G], tl.float32), 0.0
    for i_l in range(start, tl.minimum(start + chunk, cells), L):
        o_l = i_l + tl.arange(0, L)
        m_cl = m_c[:, None] & (o_l < cells)[None, :]
        b_x = load_map(p_x, o_c, o_l, m_cl, s_c, s_l)
        more = tl.minimum(cells - i_l, L) * width * 1.0
        b_tile = tl.div_rn(sum_groups(tl.sum(b_x, axis=1), G, E), more)
        b_centered = tl.where(m_cl, b_x - to_channels(b_tile, G, E)[:, None], 0.0)
        b_difference = b_tile - b_mean
        b_squares += sum_groups(tl.sum(b_centered * b_centered, axis=1), G, E)
        # Not the approximate division: for constant numbers the weight of the first tile must be 1.
        weight = tl.div_rn(more, num + more)
        b_squares += b_difference * b_difference * (num * weight)
        b_mean += b_difference * weight
        num += more
    p_moments += (tl.program_id(1) * S + tl.program_id(0)) * 2 * G + tl.arange(0, G)
    tl.store(p_moments, b_mean)
    tl.store(p_moments + G, b_squares)


@triton.jit
def load_moments(p_moments, cells, chunk, width, eps, G: tl.constexpr, E: tl.constexpr, S: tl.constexpr):
    """Mean and reciprocal deviation (c, 1) of the groups of a sample."""
    o_s, o_g = tl.arange(0, S), tl.arange(0, G)
    b_num = (tl.maximum(tl.minimum(cells - o_s * chunk, chunk), 0) * width * 1.0)[:, None]
    p_moments += (tl.program_id(1) * S + o_s[:, None]) * 2 * G + o_g[None, :]
    b_means = tl.load(p_moments, mask=b_num > 0, other=0.0)
    b_squares = tl.load(p_moments + G, mask=b_num > 0, other=0.0)
    total = cells * width * 1.0
    b_mean = tl.div_rn(tl.sum(b_num * b_means, axis=0), total)
    b_difference = b_means - b_mean[None, :]
    b_variance = tl.div_rn(tl.sum(b_squares + b_num * b_difference * b_difference, axis=0), total)
    b_scale = 1.0 / tl.sqrt_rn(b_variance + eps)
    return to_channels(b_mean, G, E)[:, None], to_channels(b_scale, G, E)[:, None]


@triton.jit
def standardize(p_x, o_c, o_l, m_cl, s_c, s_l, b_mean, b_scale):
    return (load_map(p_x, o_c, o_l, m_cl, s_c, s_l) - b_mean) * b_scale


@triton.jit
def source(o_out, size, num_out):
    """The cell at or before the position of an output cell along a side, corners on corners, and the distance to it."""
    b_at = o_out * ((size - 1.0) / (num_out - 1.0))
    i_low = tl.minimum(b_at.to(tl.int32), size - 1)
    return i_low, b_at - i_low


@triton.jit
def corner(o_l, w, i: tl.constexpr):
    """Pixel i of the four, row by row, that become the output cell `o_l` of a map of half the width `w`."""
    half = w // 2
    return (o_l // half * 2 + i // 2) * w + o_l % half * 2 + i % 2


@triton.jit
def resample(
    p_x, o_c, o_l, m_cl, h, w, s_c, s_l, b_mean, b_scale, b_weight, RESIZE: tl.constexpr
):  # fmt: skip
    """Standardized values (c, l) at output cells and, for a pooled map, the chosen one of the four cells."""
    b_chosen = tl.zeros(m_cl.shape, tl.int32)
    if RESIZE == "halve":
        b_x = standardize(p_x, o_c, corner(o_l, w, 0), m_cl, s_c, s_l, b_mean, b_scale)
        for i in tl.static_range(1, 4):
            b_other = standardize(p_x, o_c, corner(o_l, w, i), m_cl, s_c, s_l, b_mean, b_scale)
            # The largest after the weight, which may be negative; the first of equal ones, as in torch.
            m_larger = b_other * b_weight > b_x * b_weight
            b_chosen = tl.where(m_larger, i, b_chosen)
            b_x = tl.where(m_larger, b_other, b_x)
    elif RESIZE == "double":
        i_top, b_down = source(o_l // (2 * w), h, 2 * h)
        i_left, b_right = source(o_l % (2 * w), w, 2 * w)
        i_bottom, i_right = tl.minimum(i_top + 1, h - 1), tl.minimum(i_left + 1, w - 1)
        b_nw = standardize(p_x, o_c, i_top * w + i_left, m_cl, s_c, s_l, b_mean, b_scale)
        b_ne = standardize(p_x, o_c, i_top * w + i_right, m_cl, s_c, s_l, b_mean, b_scale)
        b_sw = standardize(p_x, o_c, i_bottom * w + i_left, m_cl, s_c, s_l, b_mean, b_scale)
        b_se = standardize(p_x, o_c, i_bottom * w + i_right, m_cl, s_c, s_l, b_mean, b_scale)
        b_upper = (1.0 - b_right)[None, :] * b_nw + b_right[None, :] * b_ne
        b_lower = (1.0 - b_right)[None, :] * b_sw + b_right[None, :] * b_se
        b_x = (1.0 - b_down)[None, :] * b_upper + b_down[None, :] * b_lower
    else:
        b_x = standardize(p_x, o_c, o_l, m_cl, s_c, s_l, b_mean, b_scale)
    return b_x, b_chosen


@triton.jit
def load_weights(p_weight, p_bias, o_c, m_c):
    b_weight = tl.load(p_weight + o_c, mask=m_c, other=0.0).to(tl.float32)
    b_bias = tl.load(p_bias + o_c, mask=m_c, other=0.0).to(tl.float32)
    return b_weight[:, None], b_bias[:, None]


@triton.jit
def normal_cdf(b_z):
    """Cumulative distribution function of the normal distribution."""
    return 0.5 + 0.5 * tl.erf(b_z * 0.7071067811865476)


@triton.jit
def gelu_derivative(b_z):
    return normal_cdf(b_z) + b_z * 0.3989422804014327 * tl.exp2(b_z * b_z * LOG2_E * -0.5)


@triton.jit
def group_norm_fwd_kernel(
    p_x, p_moments, p_weight, p_bias, p_skip, p_y, h, w, chunk, groups, width, eps, s_b, s_c, s_l,
    s_skip_b, s_skip_c, s_skip_l, s_y_b, s_y_c, s_y_l, cells_out,
    RESIZE: tl.constexpr, G: tl.constexpr, E: tl.constexpr, L: tl.constexpr, S: tl.constexpr,
):  # fmt: skip
    """y = GELU(resize(norm(x))) + skip."""
    i_b = tl.program_id(1).to(tl.int64)
    o_c, m_c = group_channels(groups, width, G, E)
    o_l = tl.program_id(0) * L + tl.arange(0, L)
    m_cl = m_c[:, None] & (o_l < cells_out)[None, :]
    b_mean, b_scale = load_moments(p_moments, h * w, chunk, width, eps, G, E, S)
    b_weight, b_bias = load_weights(p_weight, p_bias, o_c, m_c)
    b_x, _ = resample(p_x + i_b * s_b, o_c, o_l, m_cl, h, w, s_c, s_l, b_mean, b_scale, b_weight, RESIZE)
    b_z = b_x * b_weight + b_bias
    b_y = b_z * normal_cdf(b_z)
    if p_skip is not None:
        b_y += load_map(p_skip + i_b * s_skip_b, o_c, o_l, m_cl, s_skip_c, s_skip_l)
    p_y += i_b * s_y_b + o_c[:, None] * s_y_c + o_l[None, :] * s_y_l
    tl.store(p_y, b_y.to(p_y.dtype.element_ty), mask=m_cl)


@triton.jit
def group_norm_bwd_kernel_sums(
    p_grad_y, p_x, p_moments, p_weight, p_bias, p_derivatives, p_channel_sums, p_group_sums, h, w, chunk, chunk_out,
    groups, width, eps, s_grad_b, s_grad_c, s_grad_l, s_b, s_c, s_l, cells_out,
    RESIZE: tl.constexpr, G: tl.constexpr, E: tl.constexpr, L: tl.constexpr, S: tl.constexpr,
):  # fmt: skip
    """Sums over each chunk of output cells, of d times the standardized values and of d, the gradient before GELU.

    They are written for each channel, (b, s, 2, c), and, weighted, for each group, (b, s, 2, g). For a doubled map, d
    is also written, (b, c, l).
    """
    i_b = tl.program_id(1).to(tl.int64)
    o_c, m_c = group_channels(groups, width, G, E)
    b_mean, b_scale = load_moments(p_moments, h * w, chunk, width, eps, G, E, S)
    b_weight, b_bias = load_weights(p_weight, p_bias, o_c, m_c)
    b_along, b_sum = tl.zeros([G * E, L], tl.float32), tl.zeros([G * E, L], tl.float32)
    start = tl.program_id(0) * chunk_out
    for i_l in range(start, tl.minimum(start + chunk_out, cells_out), L):
        o_l = i_l + tl.arange(0, L)
        m_cl = m_c[:, None] & (o_l < cells_out)[None, :]
        b_x, _ = resample(p_x + i_b * s_b, o_c, o_l, m_cl, h, w, s_c, s_l, b_mean, b_scale, b_weight, RESIZE)
        b_grad = load_map(p_grad_y + i_b * s_grad_b, o_c, o_l, m_cl, s_grad_c, s_grad_l)
        b_grad *= gelu_derivative(b_x * b_weight + b_bias)
        if RESIZE == "double":
            o_derivatives = (i_b * groups * width + o_c[:, None]) * cells_out + o_l[None, :]
            tl.store(p_derivatives + o_derivatives, b_grad, mask=m_cl)
        b_along += b_grad * b_x
        b_sum += b_grad
    b_along, b_sum = tl.sum(b_along, axis=1), tl.sum(b_sum, axis=1)
    i_part = tl.program_id(1) * tl.num_programs(0) + tl.program_id(0)
    p_channel_sums += i_part * 2 * groups * width + o_c
    tl.store(p_channel_sums, b_along, mask=m_c)
    tl.store(p_channel_sums + groups * width, b_sum, mask=m_c)
    b_weights = tl.sum(b_weight, axis=1)
    p_group_sums += (tl.program_id(1) * S + tl.program_id(0)) * 2 * G + tl.arange(0, G)
    tl.store(p_group_sums, sum_groups(b_along * b_weights, G, E))
    tl.store(p_group_sums + G, sum_groups(b_sum * b_weights, G, E))


@triton.jit
def gather_doubled(p_derivatives, o_c, o_l, m_cl, h, w):
    """Gradient at cells of a map from the gradients of the doubled map at all cells less than one cell away."""
    o_h, o_w = o_l // w, o_l % w
    step_h, step_w = (h - 1.0) / (2 * h - 1.0), (w - 1.0) / (2 * w - 1.0)
    # At most four along each side: cell i is at 2i to 2i + 1, and its neighbors are a little more than two away.
    o_top, o_left = tl.maximum(2 * o_h - 1, 0), tl.maximum(2 * o_w - 1, 0)
    b_grad = tl.zeros(m_cl.shape, tl.float32)
    for i in tl.static_range(4):
        b_row = tl.maximum(1.0 - tl.abs((o_top + i) * step_h - o_h), 0.0)
        for j in tl.static_range(4):
            b_column = tl.maximum(1.0 - tl.abs((o_left + j) * step_w - o_w), 0.0)
            m_l = (o_top + i < 2 * h) & (o_left + j < 2 * w)
            o_out = (o_top + i) * 2 * w + o_left + j
            b_derivative = load_map(p_derivatives, o_c, o_out, m_cl & m_l[None, :], 4 * h * w, 1)
            b_grad += (b_row * b_column)[None, :] * b_derivative
    return b_grad


@triton.jit
def group_norm_bwd_kernel(
    p_grad_y, p_x, p_moments, p_weight, p_bias, p_derivatives, p_group_sums, p_grad_x, h, w, chunk, chunk_out,
    cells_out, groups, width, eps, s_grad_b, s_grad_c, s_grad_l, s_b, s_c, s_l, s_grad_x_b, s_grad_x_c, s_grad_x_l,
    RESIZE: tl.constexpr, G: tl.constexpr, E: tl.constexpr, L: tl.constexpr, S: tl.constexpr,
):  # fmt: skip
    """Gradient of x, at the cells of x; for a pooled map, at the four cells of each output cell."""
    i_b = tl.program_id(1).to(tl.int64)
    o_c, m_c = group_channels(groups, width, G, E)
    o_l = tl.program_id(0) * L + tl.arange(0, L)
    m_cl = m_c[:, None] & (o_l < (cells_out if RESIZE == "halve" else h * w))[None, :]
    b_mean, b_scale = load_moments(p_moments, h * w, chunk, width, eps, G, E, S)
    b_weight, b_bias = load_weights(p_weight, p_bias, o_c, m_c)

    o_s, o_g = tl.arange(0, S), tl.arange(0, G)
    p_group_sums += (tl.program_id(1) * S + o_s[:, None]) * 2 * G + o_g[None, :]
    m_s = (o_s * chunk_out < cells_out)[:, None]
    total = h * w * width * 1.0
    b_along = to_channels(tl.sum(tl.load(p_group_sums, mask=m_s, other=0.0), axis=0) / total, G, E)[:, None]
    b_level = to_channels(tl.sum(tl.load(p_group_sums + G, mask=m_s, other=0.0), axis=0) / total, G, E)[:, None]

    p_x += i_b * s_b
    p_grad_x += i_b * s_grad_x_b + o_c[:, None] * s_grad_x_c
    if RESIZE == "double":
        b_grad = gather_doubled(p_derivatives + i_b * groups * width * cells_out, o_c, o_l, m_cl, h, w)
        b_x = standardize(p_x, o_c, o_l, m_cl, s_c, s_l, b_mean, b_scale)
    else:
        b_x, b_chosen = resample(p_x, o_c, o_l, m_cl, h, w, s_c, s_l, b_mean, b_scale, b_weight, RESIZE)
        b_grad = load_map(p_grad_y + i_b * s_grad_b, o_c, o_l, m_cl, s_grad_c, s_grad_l)
        b_grad *= gelu_derivative(b_x * b_weight + b_bias)
    b_grad *= b_weight
    if RESIZE == "halve":
        for i in tl.static_range(4):
            o_i = corner(o_l, w, i)
            b_x = standardize(p_x, o_c, o_i, m_cl, s_c, s_l, b_mean, b_scale)
            b_grad_x = b_scale * (tl.where(b_chosen == i, b_grad, 0.0) - b_level - b_x * b_along)
            tl.store(p_grad_x + o_i[None, :] * s_grad_x_l, b_grad_x.to(p_grad_x.dtype.element_ty), mask=m_cl)
    else:
        b_grad_x = b_scale * (b_grad - b_level - b_x * b_along)
        tl.store(p_grad_x + o_l[None, :] * s_grad_x_l, b_grad_x.to(p_grad_x.dtype.element_ty), mask=m_cl)
