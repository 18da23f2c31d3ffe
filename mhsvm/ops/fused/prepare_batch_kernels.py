"""Kernels that make inputs and targets of uint8 batches: extremes of each image, then one pass over the pixels.

b batch, h w map, e pixels of a program. Images (b, h, w, 3) and masks (b, h, w) are contiguous bytes.
"""

import triton
import triton.language as tl


@triton.jit
def extremes_kernel(p_images, p_extremes, num_values, SPANS: tl.constexpr, BLOCK: tl.constexpr):
    """The least and the greatest of an image's values that fall to each of its programs, (b, 2, SPANS)."""
    i_span, i_b = tl.program_id(0), tl.program_id(1).to(tl.int64)
    b_low, b_high = tl.full((BLOCK,), 255, tl.int32), tl.full((BLOCK,), 0, tl.int32)
    for o_first in range(i_span * BLOCK, num_values, SPANS * BLOCK):
        o_e = o_first + tl.arange(0, BLOCK)
        m_e = o_e < num_values
        b_value = tl.load(p_images + i_b * num_values + o_e, mask=m_e, other=0).to(tl.int32)
        b_low, b_high = tl.minimum(b_low, tl.where(m_e, b_value, 255)), tl.maximum(b_high, b_value)
    p_extremes += i_b * 2 * SPANS + i_span
    tl.store(p_extremes, tl.min(b_low).to(tl.uint8))
    tl.store(p_extremes + SPANS, tl.max(b_high).to(tl.uint8))


@triton.jit
def find_sources(p_motion, o_e, height, width):
    """Where the pixels of a moved map come from: their offsets (e), and whether there is anything (e)."""
    # a motion turns and flips points (x right, y down) about the centre: its transpose is the way back
    b_xx, b_xy = tl.load(p_motion), tl.load(p_motion + 1)
    b_yx, b_yy = tl.load(p_motion + 2), tl.load(p_motion + 3)
    b_x = (o_e % width).to(tl.float32) - 0.5 * (width - 1)
    b_y = (o_e // width).to(tl.float32) - 0.5 * (height - 1)
    b_column = tl.floor(b_x * b_xx + b_y * b_yx + 0.5 * width)
    b_row = tl.floor(b_x * b_xy + b_y * b_yy + 0.5 * height)
    inside = (b_column >= 0) & (b_column < width) & (b_row >= 0) & (b_row < height)
    return b_row.to(tl.int32) * width + b_column.to(tl.int32), inside


@triton.jit
def normalize(b_value, b_low, b_span, mean, deviation, STATISTICS: tl.constexpr):
    """Bytes by the statistics of their channel, or from the image's least value to 0 and its greatest to 255."""
    if STATISTICS:
        return tl.math.div_rn(tl.math.div_rn(b_value.to(tl.float32), 255.0) - mean, deviation)
    return tl.math.div_rn(b_value.to(tl.float32) - b_low, b_span) * 255


@triton.jit
def prepare_kernel(
    p_images, p_masks, p_motions, p_extremes, p_inputs, p_targets,
    height, width, mean_r, mean_g, mean_b, deviation_r, deviation_g, deviation_b,
    SPANS: tl.constexpr, SOFT: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Inputs (b, 3, h, w) and targets (b, h, w), moved if there are motions, by statistics if there are no extremes."""
    i_b = tl.program_id(1).to(tl.int64)
    o_e, size = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), height * width
    m_e = o_e < size
    o_source, m_source = o_e, m_e
    if p_motions is not None:
        o_source, inside = find_sources(p_motions + 4 * i_b, o_e, height, width)
        m_source = m_e & inside
    STATISTICS: tl.constexpr = p_extremes is None
    b_low, b_span = 0.0, 1.0
    if not STATISTICS:
        p_spans = p_extremes + i_b * 2 * SPANS + tl.arange(0, SPANS)
        b_low = tl.min(tl.load(p_spans).to(tl.int32)).to(tl.float32)
        b_span = tl.maximum(tl.max(tl.load(p_spans + SPANS).to(tl.int32)).to(tl.float32) - b_low, 1.0)
    p_source, p_input = p_images + (i_b * size + o_source) * 3, p_inputs + i_b * 3 * size + o_e
    b_r, b_g, b_b = (
        tl.load(p_source, mask=m_source, other=0),
        tl.load(p_source + 1, mask=m_source, other=0),
        tl.load(p_source + 2, mask=m_source, other=0),
    )
    # what comes from outside is 0 among the normalised values
    b_r = tl.where(m_source, normalize(b_r, b_low, b_span, mean_r, deviation_r, STATISTICS), 0.0)
    b_g = tl.where(m_source, normalize(b_g, b_low, b_span, mean_g, deviation_g, STATISTICS), 0.0)
    b_b = tl.where(m_source, normalize(b_b, b_low, b_span, mean_b, deviation_b, STATISTICS), 0.0)
    tl.store(p_input, b_r, mask=m_e)
    tl.store(p_input + size, b_g, mask=m_e)
    tl.store(p_input + 2 * size, b_b, mask=m_e)

    b_mask = tl.load(p_masks + i_b * size + o_source, mask=m_source, other=0)
    if SOFT:
        b_target = tl.math.div_rn(b_mask.to(tl.float32), 255.0)
    elif p_targets.dtype.element_ty == tl.int64:
        b_target = b_mask
    else:
        b_target = b_mask >= 128
    tl.store(p_targets + i_b * size + o_e, b_target.to(p_targets.dtype.element_ty), mask=m_e)
