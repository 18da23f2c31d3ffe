"""Kernel of the scan's gradients. Letters, strides and the layout of states are those of `forward_kernels`.

A program computes one chunk, from its end to its start, for BLOCKS blocks of E channels. It loads tiles of T steps two
tiles ahead. States and sums over time stay in registers, as tuples with a tensor for each block.
"""

import triton
import triton.language as tl

from mhsvm.ops.common_kernels import (
    LN_2,
    LOG2_E,
    load_blocks,
    load_cells,
    program_ids,
    row,
    sigmoid,
    softplus,
    softplus_derivative,
    store_blocks,
    unaligned_range,
    with_row,
    zero_blocks,
)


@triton.jit
def load_bwd_tile(
    p_u, p_dy, p_delta, p_B, p_C, p_z, o_cell, m_t, o_e, o_n, m_n, channels, s_ul, s_dyl, s_delta_l, s_Bl, s_Cl, s_zl,
    BLOCKS: tl.constexpr,
):  # fmt: skip
    """u, dy, the raw delta and z of a tile, (t, e) for each block, and B and C, (t, n)."""
    b_u = load_blocks(p_u, o_cell * s_ul, o_e, m_t, channels, BLOCKS)
    b_dy = load_blocks(p_dy, o_cell * s_dyl, o_e, m_t, channels, BLOCKS)
    b_raw = load_blocks(p_delta, o_cell * s_delta_l, o_e, m_t, channels, BLOCKS)
    b_z = b_u
    if p_z is not None:
        b_z = load_blocks(p_z, o_cell * s_zl, o_e, m_t, channels, BLOCKS)
    m_tn = m_t[:, None] & m_n[None, :]
    b_B = tl.load(p_B + o_cell[:, None] * s_Bl + o_n[None, :], mask=m_tn, other=0.0).to(tl.float32)
    b_C = tl.load(p_C + o_cell[:, None] * s_Cl + o_n[None, :], mask=m_tn, other=0.0).to(tl.float32)
    return b_u, b_dy, b_raw, b_z, b_B, b_C


@triton.jit
def delta_of(b_raw, b_bias, SOFTPLUS: tl.constexpr):
    return softplus(b_raw + b_bias) if SOFTPLUS else b_raw + b_bias


@triton.jit
def advance_tile(b_s, b_delta, b_added, b_A, b_B, T: tl.constexpr):
    """The state (n, e) of a block after a tile; delta and delta * u are (t, e), B is (t, n)."""
    b_decay = tl.exp2(b_delta[:, None, :] * b_A[None, :, :])
    b_added3 = b_added[:, None, :] * b_B[:, :, None]
    for i in tl.static_range(T):
        b_s = row(b_decay, i, T) * b_s + row(b_added3, i, T)
    return b_s


@triton.jit
def tile_gradients(b_s, b_g, b_delta, b_u, b_dy, b_A, b_B, b_C, T: tl.constexpr):
    """Gradients of one block's tile, from the state before it and the gradient g of decay * state after it.

    Returns g before the tile; the gradients of A (n, e), of B and C before their sum over channels (t, n, e), of
    delta * u (t, e), and of delta by way of the exponent (t, e); the outputs without D (t, e).
    """
    b_B3, b_C3, b_A3 = b_B[:, :, None], b_C[:, :, None], b_A[None, :, :]
    b_delta3, b_dy3, b_du3 = b_delta[:, None, :], b_dy[:, None, :], (b_delta * b_u)[:, None, :]
    b_decay = tl.exp2(b_delta3 * b_A3)
    b_added = b_du3 * b_B3
    b_kept = b_decay  # becomes decay * state before the step, row by row
    for i in tl.static_range(T):
        b_h = row(b_decay, i, T) * b_s
        b_kept = with_row(b_kept, i, b_h, T)
        b_s = b_h + row(b_added, i, T)
    b_direct = b_dy3 * b_C3
    b_ds = b_direct
    for j in tl.static_range(T):
        b_d = row(b_direct, T - 1 - j, T) + b_g
        b_ds = with_row(b_ds, T - 1 - j, b_d, T)
        b_g = row(b_decay, T - 1 - j, T) * b_d
    b_states = b_kept + b_added
    b_dexponent = b_ds * b_kept
    b_dA = tl.sum(b_dexponent * b_delta3, axis=0)
    b_dadded = tl.sum(b_ds * b_B3, axis=1)
    b_ddelta = tl.sum(b_dexponent * b_A3, axis=1) * LN_2
    b_y = tl.sum(b_states * b_C3, axis=1)
    return b_g, b_dA, b_du3 * b_ds, b_dy3 * b_states, b_dadded, b_ddelta, b_y


# Sizes that differ between layers are not specialized: each new value would take seconds to compile.
@triton.jit(do_not_specialize=["length", "chunk", "num_chunks", "splits", "groups", "channels", "s_sums"])
def selective_scan_bwd_kernel(
    p_dy, p_u, p_delta, p_A, p_B, p_C, p_D, p_z, p_bias, p_order, p_saved, p_carry,
    p_du, p_ddelta, p_dB, p_dC, p_dz, p_dA, p_dD, p_dbias,
    length, chunk, num_chunks, splits, groups, channels, states, s_sums,
    s_dyb, s_dyl, s_dyg, s_ub, s_ul, s_um, s_dub, s_dul, s_dug, s_zb, s_zl, s_zm,
    s_delta_b, s_delta_l, s_delta_m, s_delta_k, s_ddelta_b, s_ddelta_l, s_ddelta_m, s_ddelta_k,
    s_Bb, s_Bl, s_Bm, s_Bk, s_Cb, s_Cl, s_Cm, s_Ck, s_dB_split, s_dBb, s_dBl, s_dBm, s_dBk,
    ROUTES: tl.constexpr, SOFTPLUS: tl.constexpr,
    T: tl.constexpr, N: tl.constexpr, E: tl.constexpr, BLOCKS: tl.constexpr,
):  # fmt: skip
    """Gradients of one chunk, for BLOCKS blocks of a group's channels.

    p_carry holds the gradient of decay * state after each chunk, (b, chunks, g, n, e). Sums over time are written
    for each chunk, in rows s_sums apart: p_dA (g, n, e), p_dD and p_dbias (g, e). Gradients of B and C are summed
    over the program's channels: (splits, b, l, m, k, n). The forward pass saved the state before every second tile.
    """
    i_split, i_g, i_s, i_b = program_ids(splits, groups, num_chunks)
    i_m, i_k = i_g // ROUTES, i_g % ROUTES
    i_bs = i_b * num_chunks + i_s
    SAVE_STEPS: tl.constexpr = 2 * T
    size = groups * channels * states

    o_t, o_n, o_e = tl.arange(0, T), tl.arange(0, N), i_split * BLOCKS * E + unaligned_range(E, length)
    m_n = o_n < states
    o_state = (i_g * states + o_n) * channels
    p_dy += i_b * s_dyb + i_g * s_dyg
    p_u += i_b * s_ub + i_m * s_um
    p_delta += i_b * s_delta_b + i_m * s_delta_m + i_k * s_delta_k
    p_B += i_b * s_Bb + i_m * s_Bm + i_k * s_Bk
    p_C += i_b * s_Cb + i_m * s_Cm + i_k * s_Ck
    p_du += i_b * s_dub + i_g * s_dug
    p_ddelta += i_b * s_ddelta_b + i_m * s_ddelta_m + i_k * s_ddelta_k
    o_split = i_split.to(tl.int64) * s_dB_split + i_b * s_dBb + i_m * s_dBm + i_k * s_dBk
    p_dB += o_split
    p_dC += o_split
    p_saved += i_b * tl.cdiv(length, SAVE_STEPS) * size
    if p_order is not None:
        p_order += i_g * length
    if p_z is not None:
        p_z += i_b * s_zb + i_m * s_zm
        p_dz += i_b * s_dub + i_g * s_dug
    b_A = load_blocks(p_A, o_state, o_e, m_n, channels, BLOCKS)
    b_dA = zero_blocks(N, E, BLOCKS)
    if p_carry is None:
        b_g = zero_blocks(N, E, BLOCKS)
    else:
        b_g = load_blocks(p_carry + i_bs * size, o_state, o_e, m_n, channels, BLOCKS)
    b_bias, b_dbias, b_dD = zero_blocks(T, E, BLOCKS), zero_blocks(T, E, BLOCKS), zero_blocks(T, E, BLOCKS)
    if p_bias is not None:
        b_bias = load_blocks(p_bias + i_g * channels, 0 * o_t, o_e, o_t >= 0, channels, BLOCKS)
    if p_D is not None:
        b_D = load_blocks(p_D + i_g * channels, 0 * o_t, o_e, o_t >= 0, channels, BLOCKS)

    begin = i_s * chunk
    end = tl.minimum(begin + chunk, length)
    num_tiles = tl.cdiv(end - begin, T)
    i_t = begin + (num_tiles - 1) * T
    m_t = i_t + o_t < end
    o_cell = load_cells(p_order, i_t + o_t, m_t)
    b_u, b_dy, b_raw, b_z, b_B, b_C = load_bwd_tile(
        p_u, p_dy, p_delta, p_B, p_C, p_z, o_cell, m_t, o_e, o_n, m_n, channels,
        s_ul, s_dyl, s_delta_l, s_Bl, s_Cl, s_zl, BLOCKS,
    )  # fmt: skip
    m_before = i_t - T + o_t >= begin
    o_before = load_cells(p_order, i_t - T + o_t, m_before)
    b_u1, b_dy1, b_raw1, b_z1, b_B1, b_C1 = load_bwd_tile(
        p_u, p_dy, p_delta, p_B, p_C, p_z, o_before, m_before, o_e, o_n, m_n, channels,
        s_ul, s_dyl, s_delta_l, s_Bl, s_Cl, s_zl, BLOCKS,
    )  # fmt: skip
    b_s = load_blocks(p_saved + i_t // SAVE_STEPS * size, o_state, o_e, m_n, channels, BLOCKS)
    o_next = load_cells(p_order, i_t - 2 * T + o_t, i_t - 2 * T + o_t >= begin)
    for i_tile in range(num_tiles):
        i_t = begin + (num_tiles - 1 - i_tile) * T
        m_t = i_t + o_t < end
        m_next = i_t - 2 * T + o_t >= begin
        b_u2, b_dy2, b_raw2, b_z2, b_B2, b_C2 = load_bwd_tile(
            p_u, p_dy, p_delta, p_B, p_C, p_z, o_next, m_next, o_e, o_n, m_n, channels,
            s_ul, s_dyl, s_delta_l, s_Bl, s_Cl, s_zl, BLOCKS,
        )  # fmt: skip
        m_saved = m_n & (i_t + 0 * o_n > begin)
        b_s1 = load_blocks(p_saved + (i_t - T) // SAVE_STEPS * size, o_state, o_e, m_saved, channels, BLOCKS)
        o_after = load_cells(p_order, i_t - 3 * T + o_t, i_t - 3 * T + o_t >= begin)

        b_dB = tl.zeros([T, N, E], tl.float32)
        b_dC = tl.zeros([T, N, E], tl.float32)
        b_g1, b_dA1, b_dbias1, b_dD1 = (), (), (), ()
        for j in tl.static_range(BLOCKS):
            o_j = o_e + j * E
            m_j = o_j < channels
            # The state before the tile: a second tile first advances over the one before it.
            b_sj = b_s[j]
            if i_t % SAVE_STEPS > 0:
                b_delta = delta_of(b_raw1[j], b_bias[j], SOFTPLUS)
                b_sj = advance_tile(b_sj, b_delta, b_delta * b_u1[j], b_A[j] * LOG2_E, b_B1, T)
            b_delta = tl.where(m_t[:, None], delta_of(b_raw[j], b_bias[j], SOFTPLUS), 0.0)
            b_dyj = b_dy[j]
            if p_z is not None:
                b_gate = sigmoid(b_z[j])
                b_dyj *= b_z[j] * b_gate
            b_gj, b_dAj, b_dBj, b_dCj, b_dadded, b_ddelta, b_y = tile_gradients(
                b_sj, b_g[j], b_delta, b_u[j], b_dyj, b_A[j] * LOG2_E, b_B, b_C, T
            )
            b_g1 = b_g1 + (b_gj,)
            b_dA1 = b_dA1 + (b_dA[j] + b_dAj,)
            b_dB += b_dBj
            b_dC += b_dCj

            m_te = m_t[:, None] & m_j[None, :]
            o_te = o_cell[:, None] * s_dul + o_j[None, :]
            b_ddelta += b_dadded * b_u[j]
            if SOFTPLUS:
                b_ddelta *= softplus_derivative(b_raw[j] + b_bias[j])
            b_ddelta = tl.where(m_te, b_ddelta, 0.0)
            b_dbias1 = b_dbias1 + (b_dbias[j] + b_ddelta,)
            b_dD1 = b_dD1 + (b_dD[j] + b_dyj * b_u[j],)
            b_du = b_dadded * b_delta
            if p_D is not None:
                b_du += b_dyj * b_D[j]
                b_y += b_D[j] * b_u[j]
            tl.store(p_du + o_te, b_du.to(p_du.dtype.element_ty), mask=m_te)
            if p_z is not None:
                b_dz = b_dy[j] * b_y * b_gate * (1.0 + b_z[j] * (1.0 - b_gate))
                tl.store(p_dz + o_te, b_dz.to(p_dz.dtype.element_ty), mask=m_te)
            o_delta = o_cell[:, None] * s_ddelta_l + o_j[None, :]
            tl.store(p_ddelta + o_delta, b_ddelta.to(p_ddelta.dtype.element_ty), mask=m_te)
        m_tn = m_t[:, None] & m_n[None, :]
        o_tn = o_cell[:, None] * s_dBl + o_n[None, :]
        tl.store(p_dB + o_tn, tl.sum(b_dB, axis=2).to(p_dB.dtype.element_ty), mask=m_tn)
        tl.store(p_dC + o_tn, tl.sum(b_dC, axis=2).to(p_dC.dtype.element_ty), mask=m_tn)
        b_g, b_dA, b_dbias, b_dD = b_g1, b_dA1, b_dbias1, b_dD1
        b_u, b_dy, b_raw, b_z, b_B, b_C, b_s = b_u1, b_dy1, b_raw1, b_z1, b_B1, b_C1, b_s1
        b_u1, b_dy1, b_raw1, b_z1, b_B1, b_C1 = b_u2, b_dy2, b_raw2, b_z2, b_B2, b_C2
        o_cell, o_before, o_next = o_before, o_next, o_after

    store_blocks(p_dA + i_bs * s_sums, o_state, o_e, b_dA, m_n, channels, BLOCKS)
    i_sum = i_bs * s_sums + i_g * channels
    for j in tl.static_range(BLOCKS):
        o_j = o_e + j * E
        if p_bias is not None:
            tl.store(p_dbias + i_sum + o_j, tl.sum(b_dbias[j], axis=0), mask=o_j < channels)
        if p_D is not None:
            tl.store(p_dD + i_sum + o_j, tl.sum(b_dD[j], axis=0), mask=o_j < channels)
