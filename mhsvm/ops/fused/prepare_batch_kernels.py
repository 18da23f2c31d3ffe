"""Kernels that make inputs and targets of uint8 batches: extremes of each image, then one pass over the cells.

Images (b, h, w, 3) and masks (b, h, w) are contiguous bytes. A program reads L cells, or L values at a time.
"""

import triton
import triton.language as tl


@triton.jit
def prepare_batch_fwd_kernel_extremes(p_images, p_extremes, num_values, PARTS: tl.constexpr, L: tl.constexpr):
    """Minimum and maximum of each part of an image, (b, 2, PARTS); a program reads one part."""
    i_part, i_b = tl.program_id(0), tl.program_id(1).to(tl.int64)
    b_low, b_high = tl.full((L,), 255, tl.int32), tl.full((L,), 0, tl.int32)
    for o_first in range(i_part * L, num_values, PARTS * L):
        o_l = o_first + tl.arange(0, L)
        m_l = o_l < num_values
        b_value = tl.load(p_images + i_b * num_values + o_l, mask=m_l, other=0).to(tl.int32)
        b_low, b_high = tl.minimum(b_low, tl.where(m_l, b_value, 255)), tl.maximum(b_high, b_value)
    p_extremes += i_b * 2 * PARTS + i_part
    tl.store(p_extremes, tl.min(b_low).to(tl.uint8))
    tl.store(p_extremes + PARTS, tl.max(b_high).to(tl.uint8))


@triton.jit
def find_sources(p_transform, o_l, height, width):
    """Source of each cell of a transformed map: its offset (l), and whether it is inside the map (l)."""
    # A transform rotates and flips points (x right, y down) about the center; its transpose is the inverse.
    b_xx, b_xy = tl.load(p_transform), tl.load(p_transform + 1)
    b_yx, b_yy = tl.load(p_transform + 2), tl.load(p_transform + 3)
    b_x = (o_l % width).to(tl.float32) - 0.5 * (width - 1)
    b_y = (o_l // width).to(tl.float32) - 0.5 * (height - 1)
    b_column = tl.floor(b_x * b_xx + b_y * b_yx + 0.5 * width)
    b_row = tl.floor(b_x * b_xy + b_y * b_yy + 0.5 * height)
    inside = (b_column >= 0) & (b_column < width) & (b_row >= 0) & (b_row < height)
    return b_row.to(tl.int32) * width + b_column.to(tl.int32), inside


@triton.jit
def normalize(b_value, b_low, b_range, mean, std, STATISTICS: tl.constexpr):
    """Normalize bytes by the statistics of their channel, or by the minimum and range of the image."""
    if STATISTICS:
        return tl.math.div_rn(tl.math.div_rn(b_value.to(tl.float32), 255.0) - mean, std)
    return tl.math.div_rn(b_value.to(tl.float32) - b_low, b_range) * 255


@triton.jit
def prepare_batch_fwd_kernel(
    p_images, p_masks, p_transforms, p_extremes, p_inputs, p_targets,
    height, width, mean_r, mean_g, mean_b, std_r, std_g, std_b,
    PARTS: tl.constexpr, SOFT: tl.constexpr, L: tl.constexpr,
):  # fmt: skip
    """Inputs (b, 3, h, w) and targets (b, h, w); normalization is by statistics if there are no extremes."""
    i_b = tl.program_id(1).to(tl.int64)
    o_l, size = tl.program_id(0) * L + tl.arange(0, L), height * width
    m_l = o_l < size
    o_source, m_source = o_l, m_l
    if p_transforms is not None:
        o_source, inside = find_sources(p_transforms + 4 * i_b, o_l, height, width)
        m_source = m_l & inside
    STATISTICS: tl.constexpr = p_extremes is None
    b_low, b_range = 0.0, 1.0
    if not STATISTICS:
        p_parts = p_extremes + i_b * 2 * PARTS + tl.arange(0, PARTS)
        b_low = tl.min(tl.load(p_parts).to(tl.int32)).to(tl.float32)
        b_range = tl.maximum(tl.max(tl.load(p_parts + PARTS).to(tl.int32)).to(tl.float32) - b_low, 1.0)
    p_source, p_input = p_images + (i_b * size + o_source) * 3, p_inputs + i_b * 3 * size + o_l
    b_r, b_g, b_b = (
        tl.load(p_source, mask=m_source, other=0),
        tl.load(p_source + 1, mask=m_source, other=0),
        tl.load(p_source + 2, mask=m_source, other=0),
    )
    # Cells whose source is outside the map are 0 after normalization.
    b_r = tl.where(m_source, normalize(b_r, b_low, b_range, mean_r, std_r, STATISTICS), 0.0)
    b_g = tl.where(m_source, normalize(b_g, b_low, b_range, mean_g, std_g, STATISTICS), 0.0)
    b_b = tl.where(m_source, normalize(b_b, b_low, b_range, mean_b, std_b, STATISTICS), 0.0)
    tl.store(p_input, b_r, mask=m_l)
    tl.store(p_input + size, b_g, mask=m_l)
    tl.store(p_input + 2 * size, b_b, mask=m_l)

    b_mask = tl.load(p_masks + i_b * size + o_source, mask=m_source, other=0)
    if SOFT:
        b_target = tl.math.div_rn(b_mask.to(tl.float32), 255.0)
    elif p_targets.dtype.element_ty == tl.int64:
        b_target = b_mask
    else:
        b_target = b_mask >= 128
    tl.store(p_targets + i_b * size + o_l, b_target.to(p_targets.dtype.element_ty), mask=m_l)
