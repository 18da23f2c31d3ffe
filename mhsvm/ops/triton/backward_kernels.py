"""Kernel of the scan's gradients. Letters, strides and the layout of states are those of `forward_kernels`."""

import triton
import triton.language as tl

from mhsvm.ops.triton.tiles import (
    LN_2,
    LOG2_E,
    load_cells,
    load_raw_step,
    load_state,
    row,
    sigmoid,
    softplus,
    softplus_slope,
    store_state,
    with_row,
)


@triton.jit
def add_to(p_x, b_x, m_x):
    """Accumulate in memory that this program alone writes."""
    tl.store(p_x, tl.load(p_x, mask=m_x, other=0.0) + b_x, mask=m_x)


@triton.jit
def backward_kernel(
    p_dy, p_u, p_delta, p_step, p_weight, p_A, p_B, p_C, p_D, p_z, p_bias, p_order, p_saved, p_carry,
    p_du, p_ddelta, p_dstep, p_dB, p_dC, p_dz, p_dA, p_dD, p_dbias, p_dweight,
    L, chunk, num_chunks, parts, batch, G, channels, states,
    s_dyb, s_dyl, s_dyg, s_ub, s_ul, s_ug, s_delta_b, s_delta_l, s_delta_g, s_step_b, s_step_l, s_step_g,
    s_Bb, s_Bl, s_Bg, s_Cb, s_Cl, s_Cg, s_zb, s_zl, s_zg, s_dub, s_dul, s_dug, s_gb, s_gl, s_gg,
    ROUTES: tl.constexpr, RANK: tl.constexpr, SOFTPLUS: tl.constexpr,
    SPAN: tl.constexpr, T: tl.constexpr, N: tl.constexpr, E: tl.constexpr,
):  # fmt: skip
    """Gradients of one chunk of a part of a group's channels, walked from its end, block by block of E channels.

    p_carry holds the gradient that enters each chunk from behind, of decay * state; it, and the sums over time
    p_dA (both (b, chunks, g, n, e)), p_dD, p_dbias and p_dweight (b, chunks, g, e, ...), zeros at first, stay in
    memory between tiles of steps, where no other program touches them. Gradients of B, C and the step's low-rank
    part are sums over the part's channels: (parts, b, l, g, ...).
    """
    i_p = tl.program_id(0) % parts
    i_g = tl.program_id(0) // parts % G
    i_c = tl.program_id(0) // (parts * G) % num_chunks
    i_b = (tl.program_id(0) // (parts * G) // num_chunks).to(tl.int64)
    blocks = tl.cdiv(tl.cdiv(channels, E), parts)

    o_t, o_n = tl.arange(0, T), tl.arange(0, N)
    m_n = o_n < states
    size = G * channels * states
    i_bc = i_b * num_chunks + i_c

    p_dy += i_b * s_dyb + i_g * s_dyg
    p_u += i_b * s_ub + i_g // ROUTES * s_ug
    p_B += i_b * s_Bb + i_g * s_Bg
    p_C += i_b * s_Cb + i_g * s_Cg
    p_du += i_b * s_dub + i_g * s_dug
    i_pb = i_p * batch + i_b
    p_dB += i_pb * s_gb + i_g * s_gg
    p_dC += i_pb * s_gb + i_g * s_gg
    p_carry += i_bc * size
    p_dA += i_bc * size
    if RANK == 0:
        p_delta += i_b * s_delta_b + i_g * s_delta_g
        p_ddelta += i_b * s_dub + i_g * s_dug
    else:
        p_step += i_b * s_step_b + i_g * s_step_g
        p_weight += i_g * channels * RANK
        p_dstep += i_pb * s_gb + i_g * s_gg
        p_dweight += (i_bc * G + i_g) * channels * RANK
    if p_order is not None:
        p_order += i_g * L
    if p_z is not None:
        p_z += i_b * s_zb + i_g * s_zg
        p_dz += i_b * s_dub + i_g * s_dug

    begin = i_c * chunk
    end = tl.minimum(begin + chunk, L)
    num_tiles = tl.cdiv(end - begin, T)
    for i_tile in range(num_tiles):
        i_t = begin + (num_tiles - 1 - i_tile) * T
        m_t = i_t + o_t < end
        o_cell = load_cells(p_order, i_t + o_t, m_t)
        m_tn = m_t[:, None] & m_n[None, :]
        b_B = tl.load(p_B + o_cell[:, None] * s_Bl + o_n[None, :], mask=m_tn, other=0.0).to(tl.float32)
        b_C = tl.load(p_C + o_cell[:, None] * s_Cl + o_n[None, :], mask=m_tn, other=0.0).to(tl.float32)
        b_dB = tl.zeros([T, N, E], tl.float32)
        b_dC = tl.zeros([T, N, E], tl.float32)
        for i_block in range(i_p * blocks, (i_p + 1) * blocks):
            o_e = i_block * E + tl.arange(0, E)
            m_e = o_e < channels
            o_ge = i_g * channels + o_e
            o_state = (i_g * states + o_n[:, None]) * channels + o_e[None, :]
            m_ne = m_n[:, None] & m_e[None, :]
            m_te = m_t[:, None] & m_e[None, :]
            o_te = o_cell[:, None] * s_dul + o_e[None, :]
            b_A = load_state(p_A, o_ge[None, :] * states + o_n[:, None], m_ne) * LOG2_E
            b_u = tl.load(p_u + o_cell[:, None] * s_ul + o_e[None, :], mask=m_te, other=0.0).to(tl.float32)
            b_dy = tl.load(p_dy + o_cell[:, None] * s_dyl + o_e[None, :], mask=m_te, other=0.0).to(tl.float32)
            b_g = load_state(p_carry, o_state, m_ne)
            b_raw = load_raw_step(p_delta, p_step, p_weight, o_cell, s_delta_l, s_step_l, o_e, m_t, m_e, RANK)
            if p_bias is not None:
                b_raw += tl.load(p_bias + o_ge, mask=m_e, other=0.0).to(tl.float32)[None, :]
            b_dt = tl.where(m_t[:, None], softplus(b_raw) if SOFTPLUS else b_raw, 0.0)
            if p_z is not None:
                b_z = tl.load(p_z + o_cell[:, None] * s_zl + o_e[None, :], mask=m_te, other=0.0).to(tl.float32)
                b_gate = sigmoid(b_z)
                b_dout = b_dy
                b_dy *= b_z * b_gate

            # The state before the tile, from the one saved before its span.
            i_span = i_t // SPAN
            b_s = load_state(p_saved + (i_b * tl.cdiv(L, SPAN) + i_span) * size, o_state, m_ne)
            for i_w in range(i_span * SPAN, i_t, T):
                b_s = walk_tile(
                    b_s, b_A, p_u, p_delta, p_step, p_weight, p_B, p_bias, p_order, i_w, o_e, o_ge, m_e, m_n,
                    s_ul, s_delta_l, s_step_l, s_Bl, RANK, SOFTPLUS, T, N, E,
                )  # fmt: skip

            b_dt3, b_B3, b_A3 = b_dt[:, None, :], b_B[:, :, None], b_A[None, :, :]
            b_dy3, b_C3 = b_dy[:, None, :], b_C[:, :, None]
            b_du3 = (b_dt * b_u)[:, None, :]
            b_decay = tl.exp2(b_dt3 * b_A3)
            b_added = b_du3 * b_B3
            b_kept = b_decay  # decay * state before the step; every row is replaced
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
            store_state(p_carry, o_state, b_g, m_ne)

            b_states = b_kept + b_added
            b_dC += b_dy3 * b_states
            b_dB += b_du3 * b_ds
            b_dadded = tl.sum(b_ds * b_B3, axis=1)  # (t, e)
            b_dexponent = b_ds * b_kept
            b_ddt = tl.sum(b_dexponent * b_A3, axis=1) * LN_2 + b_dadded * b_u
            b_dA = load_state(p_dA, o_state, m_ne) + tl.sum(b_dexponent * b_dt3, axis=0)
            store_state(p_dA, o_state, b_dA, m_ne)
            b_du = b_dadded * b_dt
            if p_D is not None:
                b_D = tl.load(p_D + o_ge, mask=m_e, other=0.0).to(tl.float32)
                b_du += b_dy * b_D[None, :]
                add_to(p_dD + i_bc * G * channels + o_ge, tl.sum(b_dy * b_u, axis=0), m_e)
            tl.store(p_du + o_te, b_du.to(p_du.dtype.element_ty), mask=m_te)
            if p_z is not None:
                b_y = tl.sum(b_states * b_C3, axis=1)
                if p_D is not None:
                    b_y += b_D[None, :] * b_u
                b_dz = b_dout * b_y * b_gate * (1.0 + b_z * (1.0 - b_gate))
                tl.store(p_dz + o_te, b_dz.to(p_dz.dtype.element_ty), mask=m_te)
            if SOFTPLUS:
                b_ddt *= softplus_slope(b_raw)
            b_ddt = tl.where(m_te, b_ddt, 0.0)
            if p_bias is not None:
                add_to(p_dbias + i_bc * G * channels + o_ge, tl.sum(b_ddt, axis=0), m_e)
            if RANK == 0:
                tl.store(p_ddelta + o_te, b_ddt.to(p_ddelta.dtype.element_ty), mask=m_te)
            for r in tl.static_range(RANK):
                b_step = tl.load(p_step + o_cell * s_step_l + r, mask=m_t, other=0.0).to(tl.float32)
                b_weight = tl.load(p_weight + o_e * RANK + r, mask=m_e, other=0.0).to(tl.float32)
                add_to(p_dweight + o_e * RANK + r, tl.sum(b_ddt * b_step[:, None], axis=0), m_e)
                b_dstep = tl.sum(b_ddt * b_weight[None, :], axis=1)
                p_r = p_dstep + o_cell * s_gl + r
                if i_block > i_p * blocks:
                    b_dstep += tl.load(p_r, mask=m_t, other=0.0).to(tl.float32)
                tl.store(p_r, b_dstep.to(p_dstep.dtype.element_ty), mask=m_t)
            # What stays in memory may be read again by other lanes than wrote it.
            tl.debug_barrier()
        o_tn = o_cell[:, None] * s_gl + o_n[None, :]
        tl.store(p_dB + o_tn, tl.sum(b_dB, axis=2).to(p_dB.dtype.element_ty), mask=m_tn)
        tl.store(p_dC + o_tn, tl.sum(b_dC, axis=2).to(p_dC.dtype.element_ty), mask=m_tn)


@triton.jit
def walk_tile(
    b_s, b_A, p_u, p_delta, p_step, p_weight, p_B, p_bias, p_order, i_t, o_e, o_ge, m_e, m_n,
    s_ul, s_delta_l, s_step_l, s_Bl, RANK: tl.constexpr, SOFTPLUS: tl.constexpr,
    T: tl.constexpr, N: tl.constexpr, E: tl.constexpr,
):  # fmt: skip
    """The state T steps on; all of them exist."""
    o_t = i_t + tl.arange(0, T)
    m_t = o_t >= 0
    o_cell = load_cells(p_order, o_t, m_t)
    b_u = tl.load(p_u + o_cell[:, None] * s_ul + o_e[None, :], mask=m_e[None, :], other=0.0).to(tl.float32)
    b_B = tl.load(p_B + o_cell[:, None] * s_Bl + tl.arange(0, N)[None, :], mask=m_n[None, :], other=0.0).to(tl.float32)
    b_dt = load_raw_step(p_delta, p_step, p_weight, o_cell, s_delta_l, s_step_l, o_e, m_t, m_e, RANK)
    if p_bias is not None:
        b_dt += tl.load(p_bias + o_ge, mask=m_e, other=0.0).to(tl.float32)[None, :]
    if SOFTPLUS:
        b_dt = softplus(b_dt)
    b_decay = tl.exp2(b_dt[:, None, :] * b_A[None, :, :])
    b_added = (b_dt * b_u)[:, None, :] * b_B[:, :, None]
    for i in tl.static_range(T):
        b_s = row(b_decay, i, T) * b_s + row(b_added, i, T)
    return b_s
