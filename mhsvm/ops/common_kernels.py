"""Device functions that several kernels use: ids of programs, tiles of a few steps, activations.

A tile of a scan, (t, n, e), is held by one warp. Triton's default layout spreads the states over 4 lanes, the channels
over 8, and keeps all steps of one state in registers of one lane. So a row of a tile is taken without moving data, and
the recurrence along the steps is register arithmetic.
"""

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)
LN_2 = tl.constexpr(0.6931471805599453)


@triton.jit
def unaligned_range(E: tl.constexpr, size):
    """0..E-1, plus a 0 that the compiler cannot know, so that it cannot assume the alignment.

    A lane then loads one number at a time, in the layout of the rows of a tile. Wide loads would have another layout,
    with a conversion at each use.
    """
    return tl.arange(0, E) + (tl.minimum(size, 1) - 1)


@triton.jit
def load_blocks(p_x, o_rows, o_e, m_rows, channels, BLOCKS: tl.constexpr):
    """Rows of each block of channels, a tuple of float32 tiles (rows, e)."""
    b_x = ()
    for j in tl.static_range(BLOCKS):
        o_j = o_e + j * o_e.shape[0]
        m_x = m_rows[:, None] & (o_j < channels)[None, :]
        b_j = tl.load(p_x + o_rows[:, None] + o_j[None, :], mask=m_x, other=0.0)
        b_x = b_x + (b_j.to(tl.float32),)
    return b_x


@triton.jit
def store_blocks(p_x, o_rows, o_e, b_x, m_rows, channels, BLOCKS: tl.constexpr):
    """Store rows, the reverse of `load_blocks`."""
    for j in tl.static_range(BLOCKS):
        o_j = o_e + j * o_e.shape[0]
        m_x = m_rows[:, None] & (o_j < channels)[None, :]
        p_j = p_x + o_rows[:, None] + o_j[None, :]
        tl.store(p_j, b_x[j].to(p_x.dtype.element_ty), mask=m_x)


@triton.jit
def zero_blocks(ROWS: tl.constexpr, E: tl.constexpr, BLOCKS: tl.constexpr):
    b_x = ()
    for _ in tl.static_range(BLOCKS):
        b_x = b_x + (tl.zeros([ROWS, E], tl.float32),)
    return b_x


@triton.jit
def row(b_x, i: tl.constexpr, T: tl.constexpr):
    """Row i of a tile (t, n, e): (n, e).

    A sum over the bits, with all other rows zero: the compiler reduces it to a choice of registers. It could not reduce
    a sum of floats, because of -0.0.
    """
    b_bits = b_x.to(tl.int32, bitcast=True)
    m_i = tl.arange(0, T)[:, None, None] == i
    return tl.sum(tl.where(m_i, b_bits, 0), axis=0).to(tl.float32, bitcast=True)


@triton.jit
def with_row(b_x, i: tl.constexpr, b_row, T: tl.constexpr):
    """The tile (t, n, e) with row i replaced."""
    return tl.where(tl.arange(0, T)[:, None, None] == i, b_row[None, :, :], b_x)


@triton.jit
def softplus(b_x):
    """log(1 + e^x), to a few units in the last place of float32, even where it is tiny; x itself above 20."""
    b_e = tl.exp2(b_x * LOG2_E)
    b_series = b_e * (1.0 - b_e * (0.5 - b_e * (0.33333334 - b_e * 0.25)))
    b_log = tl.log2(1.0 + b_e) * LN_2
    return tl.where(b_x > 20.0, b_x, tl.where(b_e < 0.03, b_series, b_log))


@triton.jit
def softplus_derivative(b_x):
    """Derivative of `softplus`: the logistic function, 1 above 20."""
    b_e = tl.exp2(b_x * LOG2_E)
    return tl.where(b_x > 20.0, 1.0, b_e / (1.0 + b_e))


@triton.jit
def sigmoid(b_x):
    return 1.0 / (1.0 + tl.exp2(-b_x * LOG2_E))


@triton.jit
def load_cells(p_order, o_t, m_t):
    """Cells of the steps of a route; the steps themselves if there is no order."""
    return o_t if p_order is None else tl.load(p_order + o_t, mask=m_t, other=0).to(tl.int32)


@triton.jit
def program_ids(num_blocks, groups, num_chunks):
    """Block of channels, group, chunk and sample of a program; the block runs fastest."""
    i_program = tl.program_id(0)
    i_bs = i_program // (num_blocks * groups)
    i_b = (i_bs // num_chunks).to(tl.int64)
    return i_program % num_blocks, i_program // num_blocks % groups, i_bs % num_chunks, i_b
