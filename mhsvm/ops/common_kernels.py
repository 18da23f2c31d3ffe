"""What the scan kernels share: programs, and tiles of a few steps.

A tile is t steps of n states of e channels, (t, n, e), held by one warp: Triton's default layout spreads the
states over 4 lanes, the channels over 8, and keeps all steps of one state in registers of one lane. So a row
of a tile can be taken without moving data, and the walk along the steps is plain register arithmetic.
"""

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)
LN_2 = tl.constexpr(0.6931471805599453)


@triton.jit
def narrow_range(E: tl.constexpr, L):
    """0..E-1, plus a 0 that the compiler does not know, which hides its alignment.

    A lane then takes one number a load, in the layout of a tile's rows; wide loads would bring a layout of their
    own, and a conversion at each use.
    """
    return tl.arange(0, E) + (tl.minimum(L, 1) - 1)


@triton.jit
def load_blocks(p_x, o_rows, o_e, m_rows, channels, BLOCKS: tl.constexpr):
    """Rows (r, e) of each block of channels, a tuple of float32 tiles."""
    b_x = ()
    for k in tl.static_range(BLOCKS):
        o_k = o_e + k * o_e.shape[0]
        m_x = m_rows[:, None] & (o_k < channels)[None, :]
        b_k = tl.load(p_x + o_rows[:, None] + o_k[None, :], mask=m_x, other=0.0)
        b_x = b_x + (b_k.to(tl.float32),)
    return b_x


@triton.jit
def store_blocks(p_x, o_rows, o_e, b_x, m_rows, channels, BLOCKS: tl.constexpr):
    """Store what `load_blocks` loads."""
    for k in tl.static_range(BLOCKS):
        o_k = o_e + k * o_e.shape[0]
        m_x = m_rows[:, None] & (o_k < channels)[None, :]
        p_k = p_x + o_rows[:, None] + o_k[None, :]
        tl.store(p_k, b_x[k].to(p_x.dtype.element_ty), mask=m_x)


@triton.jit
def zero_blocks(ROWS: tl.constexpr, E: tl.constexpr, BLOCKS: tl.constexpr):
    b_x = ()
    for _ in tl.static_range(BLOCKS):
        b_x = b_x + (tl.zeros([ROWS, E], tl.float32),)
    return b_x


@triton.jit
def row(b_x, i: tl.constexpr, T: tl.constexpr):
    """Row i of a tile (t, n, e): (n, e).

    A sum with all other rows zero, over bits, which the compiler folds to a choice of registers; a sum of
    floats it must keep, for the sake of -0.0.
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
    """log(1 + e^x), to a few units in the last place of float32 also where it is tiny; x above 20."""
    b_e = tl.exp2(b_x * LOG2_E)
    b_series = b_e * (1.0 - b_e * (0.5 - b_e * (0.33333334 - b_e * 0.25)))
    b_log = tl.log2(1.0 + b_e) * LN_2
    return tl.where(b_x > 20.0, b_x, tl.where(b_e < 0.03, b_series, b_log))


@triton.jit
def softplus_slope(b_x):
    """The logistic function, 1 above 20."""
    b_e = tl.exp2(b_x * LOG2_E)
    return tl.where(b_x > 20.0, 1.0, b_e / (1.0 + b_e))


@triton.jit
def sigmoid(b_x):
    return 1.0 / (1.0 + tl.exp2(-b_x * LOG2_E))


@triton.jit
def load_cells(p_order, o_t, m_t):
    """Where the steps' numbers lie: the cells of a route, or the steps themselves."""
    return o_t if p_order is None else tl.load(p_order + o_t, mask=m_t, other=0).to(tl.int32)


@triton.jit
def program_ids(num_blocks, G, num_chunks):
    """Block of channels, group, chunk and sample of a program, the block running fastest."""
    i_p = tl.program_id(0)
    i_b = (i_p // (num_blocks * G) // num_chunks).to(tl.int64)
    return i_p % num_blocks, i_p // num_blocks % G, i_p // (num_blocks * G) % num_chunks, i_b
