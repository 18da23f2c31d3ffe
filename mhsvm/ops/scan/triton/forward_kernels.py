"""Kernels of the scan: its outputs and, where l is split into chunks, the state at the start of each chunk.

Letters are those of `mhsvm.ops`; the k routes of a head have the same u. A program computes a block of E channels of a
group, in tiles of T steps. Last axes are contiguous. Strides are those of the batch (b), a step or cell (l), a head
(m), a route of a head (k), or a group (g).
"""

import triton
import triton.language as tl

from mhsvm.ops.common_kernels import LOG2_E, load_cells, program_ids, row, sigmoid, softplus, unaligned_range


# Sizes that differ between layers are not specialized: each new value would take seconds to compile.
@triton.jit(
    do_not_specialize=[
        "length",
        "chunk",
        "num_chunks",
        "groups",
        "channels",
        "s_Bk",
        "s_Bl",
        "s_Bm",
        "s_Ck",
        "s_Cl",
        "s_Cm",
    ]
)
def selective_scan_fwd_kernel(
    p_u, p_delta, p_A, p_B, p_C, p_D, p_z, p_bias, p_order, p_start, p_y, p_saved, p_last,
    length, chunk, num_chunks, groups, channels, states,
    s_ub, s_ul, s_um, s_yb, s_yl, s_yg, s_zb, s_zl, s_zm,
    s_delta_b, s_delta_l, s_delta_m, s_delta_k,
    s_Bb, s_Bl, s_Bm, s_Bk, s_Cb, s_Cl, s_Cm, s_Ck,
    ROUTES: tl.constexpr, SOFTPLUS: tl.constexpr,
    SAVE_STEPS: tl.constexpr, T: tl.constexpr, N: tl.constexpr, E: tl.constexpr,
):  # fmt: skip
    """Outputs of one chunk, for E channels of a group, from the state at its start (b, chunks, g, n, e), or zero.

    Writes the last state (b, g, n, e) and, if p_saved is given, the state before every SAVE_STEPS steps,
    (b, saves, g, n, e).
    """
    i_e, i_g, i_s, i_b = program_ids(tl.cdiv(channels, E), groups, num_chunks)
    i_m, i_k = i_g // ROUTES, i_g % ROUTES
    o_t, o_n, o_e = tl.arange(0, T), tl.arange(0, N), i_e * E + tl.arange(0, E)
    m_e, m_n = o_e < channels, o_n < states
    m_ne = m_n[:, None] & m_e[None, :]
    o_state = (i_g * states + o_n[:, None]) * channels + (i_e * E + unaligned_range(E, length))[None, :]
    b_A = tl.load(p_A + o_state, mask=m_ne, other=0.0).to(tl.float32) * LOG2_E
    if p_bias is not None:
        b_bias = tl.load(p_bias + i_g * channels + o_e, mask=m_e, other=0.0).to(tl.float32)
    if p_D is not None:
        b_D = tl.load(p_D + i_g * channels + o_e, mask=m_e, other=0.0).to(tl.float32)
    size = groups * channels * states
    if p_start is None:
        b_s = tl.zeros([N, E], tl.float32)
    else:
        b_s = tl.load(p_start + (i_b * num_chunks + i_s) * size + o_state, mask=m_ne, other=0.0)

    p_u += i_b * s_ub + i_m * s_um
    p_B += i_b * s_Bb + i_m * s_Bm + i_k * s_Bk
    p_C += i_b * s_Cb + i_m * s_Cm + i_k * s_Ck
    p_y += i_b * s_yb + i_g * s_yg
    p_delta += i_b * s_delta_b + i_m * s_delta_m + i_k * s_delta_k
    if p_order is not None:
        p_order += i_g * length
    if p_z is not None:
        p_z += i_b * s_zb + i_m * s_zm

    begin = i_s * chunk
    end = tl.minimum(begin + chunk, length)
    # A tile is loaded while the one before it is computed, and its cells one tile earlier still.
    o_cell = load_cells(p_order, begin + o_t, begin + o_t < end)
    o_next = load_cells(p_order, begin + T + o_t, begin + T + o_t < end)
    m_t = begin + o_t < end
    m_te, m_tn = m_t[:, None] & m_e[None, :], m_t[:, None] & m_n[None, :]
    b_u = tl.load(p_u + o_cell[:, None] * s_ul + o_e[None, :], mask=m_te, other=0.0).to(tl.float32)
    b_B = tl.load(p_B + o_cell[:, None] * s_Bl + o_n[None, :], mask=m_tn, other=0.0).to(tl.float32)
    b_C = tl.load(p_C + o_cell[:, None] * s_Cl + o_n[None, :], mask=m_tn, other=0.0).to(tl.float32)
    b_delta = tl.load(p_delta + o_cell[:, None] * s_delta_l + o_e[None, :], mask=m_te, other=0.0).to(tl.float32)
    for i_t in range(begin, end, T):
        if p_saved is not None:  # noqa: SIM102
            if i_t % SAVE_STEPS == 0:
                p_save = p_saved + (i_b * tl.cdiv(length, SAVE_STEPS) + i_t // SAVE_STEPS) * size
                tl.store(p_save + o_state, b_s.to(p_saved.dtype.element_ty), mask=m_ne)
        m_t = i_t + o_t < end
        m_te = m_t[:, None] & m_e[None, :]
        m_next = i_t + T + o_t < end
        m_te_next, m_tn_next = m_next[:, None] & m_e[None, :], m_next[:, None] & m_n[None, :]
        b_u_next = tl.load(p_u + o_next[:, None] * s_ul + o_e[None, :], mask=m_te_next, other=0.0)
        b_B_next = tl.load(p_B + o_next[:, None] * s_Bl + o_n[None, :], mask=m_tn_next, other=0.0)
        b_C_next = tl.load(p_C + o_next[:, None] * s_Cl + o_n[None, :], mask=m_tn_next, other=0.0)
        b_delta_next = tl.load(p_delta + o_next[:, None] * s_delta_l + o_e[None, :], mask=m_te_next, other=0.0)
        o_after = load_cells(p_order, i_t + 2 * T + o_t, i_t + 2 * T + o_t < end)

        if p_bias is not None:
            b_delta += b_bias[None, :]
        if SOFTPLUS:
            b_delta = softplus(b_delta)
        # Steps after the end do not change the state.
        b_delta = tl.where(m_t[:, None], b_delta, 0.0)
        b_decay = tl.exp2(b_delta[:, None, :] * b_A[None, :, :])
        b_added = (b_delta * b_u)[:, None, :] * b_B[:, :, None]
        b_C = tl.broadcast_to(b_C[:, :, None], (T, N, E))
        b_y = tl.zeros([T, E], tl.float32)
        for i in tl.static_range(T):
            b_s = row(b_decay, i, T) * b_s + row(b_added, i, T)
            b_y = tl.where(o_t[:, None] == i, tl.sum(b_s * row(b_C, i, T), axis=0)[None, :], b_y)
        if p_D is not None:
            b_y += b_D[None, :] * b_u
        if p_z is not None:
            b_z = tl.load(p_z + o_cell[:, None] * s_zl + o_e[None, :], mask=m_te, other=0.0).to(tl.float32)
            b_y *= b_z * sigmoid(b_z)
        tl.store(p_y + o_cell[:, None] * s_yl + o_e[None, :], b_y.to(p_y.dtype.element_ty), mask=m_te)
        b_u, b_B, b_C = b_u_next.to(tl.float32), b_B_next.to(tl.float32), b_C_next.to(tl.float32)
        b_delta, o_cell, o_next = b_delta_next.to(tl.float32), o_next, o_after
    if i_s == num_chunks - 1:
        tl.store(p_last + i_b * size + o_state, b_s, mask=m_ne)


@triton.jit
def load_fwd_tile(
    p_x, p_delta, p_B, p_z, o_cell, m_t, o_e, m_e, o_n, m_n, s_xl, s_delta_l, s_Bl, s_zl
):  # fmt: skip
    """x, the raw delta and z of a tile, (t, e), and B, (t, n)."""
    m_te, m_tn = m_t[:, None] & m_e[None, :], m_t[:, None] & m_n[None, :]
    b_x = tl.load(p_x + o_cell[:, None] * s_xl + o_e[None, :], mask=m_te, other=0.0).to(tl.float32)
    b_z = b_x
    if p_z is not None:
        b_z = tl.load(p_z + o_cell[:, None] * s_zl + o_e[None, :], mask=m_te, other=0.0).to(tl.float32)
    b_B = tl.load(p_B + o_cell[:, None] * s_Bl + o_n[None, :], mask=m_tn, other=0.0).to(tl.float32)
    b_delta = tl.load(p_delta + o_cell[:, None] * s_delta_l + o_e[None, :], mask=m_te, other=0.0).to(tl.float32)
    return b_x, b_delta, b_z, b_B


@triton.jit(
    do_not_specialize=[
        "length",
        "chunk",
        "num_chunks",
        "groups",
        "channels",
        "s_Bk",
        "s_Bl",
        "s_Bm",
    ]
)
def selective_scan_fwd_chunk_kernel(
    p_x, p_delta, p_A, p_B, p_z, p_bias, p_order, p_end, p_sum,
    length, chunk, num_chunks, groups, channels, states,
    s_xb, s_xl, s_xg, s_zb, s_zl, s_zm,
    s_delta_b, s_delta_l, s_delta_m, s_delta_k, s_Bb, s_Bl, s_Bm, s_Bk,
    ROUTES: tl.constexpr, SOFTPLUS: tl.constexpr, REVERSE: tl.constexpr,
    T: tl.constexpr, N: tl.constexpr, E: tl.constexpr,
):  # fmt: skip
    """The state at the end of a chunk that starts from zero (b, chunks, g, n, e), and the chunk's sum of delta.

    x is u, one a head. In reverse, for the backward pass, it starts at the chunk's end with x = grad_y, gated by z,
    one a group, and B = C: s = decay * (s + x B). The last chunk is left out, as no chunk follows it.
    """
    i_e, i_g, i_s, i_b = program_ids(tl.cdiv(channels, E), groups, num_chunks - 1)
    i_s += 1 if REVERSE else 0
    i_m, i_k = i_g // ROUTES, i_g % ROUTES
    o_t, o_n, o_e = tl.arange(0, T), tl.arange(0, N), i_e * E + tl.arange(0, E)
    m_e, m_n = o_e < channels, o_n < states
    m_ne = m_n[:, None] & m_e[None, :]
    o_state = (i_g * states + o_n[:, None]) * channels + (i_e * E + unaligned_range(E, length))[None, :]
    b_A = tl.load(p_A + o_state, mask=m_ne, other=0.0).to(tl.float32) * LOG2_E
    if p_bias is not None:
        b_bias = tl.load(p_bias + i_g * channels + o_e, mask=m_e, other=0.0).to(tl.float32)

    p_x += i_b * s_xb + (i_g if REVERSE else i_m) * s_xg
    p_B += i_b * s_Bb + i_m * s_Bm + i_k * s_Bk
    p_delta += i_b * s_delta_b + i_m * s_delta_m + i_k * s_delta_k
    if p_order is not None:
        p_order += i_g * length
    if p_z is not None:
        p_z += i_b * s_zb + i_m * s_zm

    begin = i_s * chunk
    end = tl.minimum(begin + chunk, length)
    num_tiles = tl.cdiv(end - begin, T)
    stride = -T if REVERSE else T
    i_t = begin + (num_tiles - 1) * T if REVERSE else begin
    m_t = i_t + o_t < end
    o_cell = load_cells(p_order, i_t + o_t, m_t)
    m_after = (i_t + stride + o_t >= begin) & (i_t + stride + o_t < end)
    o_after = load_cells(p_order, i_t + stride + o_t, m_after)
    b_x, b_delta, b_z, b_B = load_fwd_tile(
        p_x, p_delta, p_B, p_z, o_cell, m_t, o_e, m_e, o_n, m_n, s_xl, s_delta_l, s_Bl, s_zl
    )  # fmt: skip
    b_s = tl.zeros([N, E], tl.float32)
    b_sum = tl.zeros([T, E], tl.float32)
    for _ in range(num_tiles):
        m_next = m_after
        b_x_next, b_delta_next, b_z_next, b_B_next = load_fwd_tile(
            p_x, p_delta, p_B, p_z, o_after, m_next, o_e, m_e, o_n, m_n, s_xl, s_delta_l, s_Bl, s_zl
        )  # fmt: skip
        i_t += stride
        m_after = (i_t + stride + o_t >= begin) & (i_t + stride + o_t < end)
        o_after = load_cells(p_order, i_t + stride + o_t, m_after)

        if p_bias is not None:
            b_delta += b_bias[None, :]
        if SOFTPLUS:
            b_delta = softplus(b_delta)
        b_delta = tl.where(m_t[:, None], b_delta, 0.0)
        b_sum += b_delta
        if p_z is not None:
            b_x *= b_z * sigmoid(b_z)
        b_decay = tl.exp2(b_delta[:, None, :] * b_A[None, :, :])
        if REVERSE:
            b_added = b_x[:, None, :] * b_B[:, :, None]
            for i in tl.static_range(T):
                b_s = row(b_decay, T - 1 - i, T) * (b_s + row(b_added, T - 1 - i, T))
        else:
            b_added = (b_delta * b_x)[:, None, :] * b_B[:, :, None]
            for i in tl.static_range(T):
                b_s = row(b_decay, i, T) * b_s + row(b_added, i, T)
        m_t = m_next
        b_x, b_delta, b_z, b_B = b_x_next, b_delta_next, b_z_next, b_B_next
    i_bs = i_b * num_chunks + i_s
    tl.store(p_end + i_bs * (groups * channels * states) + o_state, b_s, mask=m_ne)
    tl.store(p_sum + (i_bs * groups + i_g) * channels + o_e, tl.sum(b_sum, axis=0), mask=m_e)


@triton.jit(do_not_specialize=["num_chunks", "size", "channels"])
def selective_scan_fwd_carry_kernel(
    p_end, p_sum, p_A, p_initial, num_chunks, size, channels, states, REVERSE: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """Replace the end state of each chunk by the state that enters it, in place; (b, chunks, g, n, e).

    The decay over a chunk is exp(A * sum of delta), never a product of rounded exponentials.
    """
    i_b = tl.program_id(1).to(tl.int64)
    o_state = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    m_state = o_state < size
    o_ge = o_state // (channels * states) * channels + o_state % channels
    b_A = tl.load(p_A + o_state, mask=m_state, other=0.0).to(tl.float32) * LOG2_E
    if p_initial is None:
        b_s = tl.zeros([BLOCK], tl.float32)
    else:
        b_s = tl.load(p_initial + i_b * size + o_state, mask=m_state, other=0.0).to(tl.float32)
    i_bs = i_b * num_chunks + (num_chunks - 1 if REVERSE else 0)
    b_end = tl.load(p_end + i_bs * size + o_state, mask=m_state, other=0.0)
    b_sum = tl.load(p_sum + i_bs * (size // states) + o_ge, mask=m_state, other=0.0)
    for i in range(num_chunks):
        # The next chunk is loaded before this one is overwritten, so that loads overlap. The end state of the last
        # chunk was never written, as no chunk follows it.
        i_next = i_bs + (-1 if REVERSE else 1)
        m_next = m_state & (i + 2 + 0 * o_state < num_chunks)
        b_end_next = tl.load(p_end + i_next * size + o_state, mask=m_next, other=0.0)
        b_sum_next = tl.load(p_sum + i_next * (size // states) + o_ge, mask=m_next, other=0.0)
        tl.store(p_end + i_bs * size + o_state, b_s, mask=m_state)
        b_s = tl.exp2(b_A * b_sum) * b_s + b_end
        b_end, b_sum, i_bs = b_end_next, b_sum_next, i_next
