// Gradients of the scan, from the end of a chunk to its start. The legend is in scan.cuh.
//
// A tile is two halves of HALF = 4 steps, the later one first. A half's states and decays are in registers: they are
// walked from the state saved before the tile, and then differentiated step by step, backward. Gradients of B and C are
// sums over channels: a lane adds its own, then 8 lanes add theirs through shared memory, then the warps of the block.
// If a group has more channels, each block leaves its part. Gradients of A, D and the bias are sums over the steps of a
// chunk.
#include "scan.cuh"

struct Backward {
  const Y* dy; const U* u; const X* delta; const float* A; const X* B; const X* C; const float* D; const Z* z;
  const float* bias; const i64* order; const SAVED* saved; const float* initial; const float* ends; const float* sums;
  U_GRAD* du; X* ddelta; BC_GRAD* dB; BC_GRAD* dC; Z* dz; float* dA; float* dD; float* dbias;
  i64 s_dyb, s_dyg, s_ub, s_uh, s_deltab, s_deltah, s_deltak, s_Bb, s_Bh, s_Bk, s_Cb, s_Ch, s_Ck, s_zb, s_zg, s_dub,
      s_dug, s_ddeltab, s_ddeltah, s_ddeltak, s_dBpart, s_dBb, s_dBh, s_dBk, s_dzb, s_dzg, s_row;
  int s_dyl, s_ul, s_deltal, s_Bl, s_Cl, s_zl, s_dul, s_ddeltal, s_dBl, s_dzl, length, chunk, chunks, groups, routes, e,
      n, parts;
};

// A stage in shared memory: dy, u, delta, z of TILE x E; B and C of TILE x N; the state before the tile, E x N.
constexpr int AT_U = TILE * E * sizeof(Y), AT_DELTA = AT_U + TILE * E * sizeof(U);
constexpr int AT_Z = AT_DELTA + TILE * E * sizeof(X);
constexpr int AT_B = AT_Z + (GATE ? TILE * E * sizeof(Z) : 0), AT_C = AT_B + TILE * N * sizeof(X);
constexpr int AT_SAVED = AT_C + TILE * N * sizeof(X), STAGE = AT_SAVED + E * N * sizeof(SAVED);
constexpr int HALF = 4;
// A row of pairs is padded: the lanes of four steps and two channels read 8 different banks of 16 bytes.
constexpr int PAIR_ROW = E + 2;
// Sums over channels: a row for each step of a half, of B or C, and block of states, padded.
constexpr int SUM_ROW = 512 + 64, SUM_BLOCK = HALF * 2 * SUM_ROW, SUM_HALF = NB * SUM_BLOCK;
constexpr int WIDE = sizeof(X) == 4 ? 0 : TILE * 2 * N * 4;
constexpr int WARP = STAGES * STAGE + TILE * PAIR_ROW * 16 + BUFFERS * SUM_HALF + WIDE + STAGES * TILE * 4;
// Sums of each warp: parity of the tile, half, warp, lane.
constexpr int CROSS = WARPS == 1 ? 0 : 2 * 2 * WARPS * 32 * 16;
static_assert(NB == 1 || WARPS == 1, "more than 16 states take one warp a block");

// Advance s by a half. `pairs` and `B` begin with the lane's first, of the half.
DEVICE void walk(States& s, const States& A, const float4* pairs, const float* B) {
#pragma unroll
  for (int t = 0; t < HALF; t++) {
    float b[K];
    load_states(b, B + t * N);
#pragma unroll
    for (int c = 0; c < C_; c++) {
      const float2 pair = *(const float2*)(pairs + t * PAIR_ROW + c * 8);
#pragma unroll
      for (int i = 0; i < K; i++) s[c][i] = fmaf(ex2(pair.x * A[c][i]), s[c][i], pair.y * b[i]);
    }
  }
}

struct OfSteps {                  // the lane's part of numbers that have a step and a channel
  float exponent[C_][HALF];       // gradient of delta through the exponent, / ln 2
  float added[C_][HALF];          // gradient of delta * u
  float y[GATE ? C_ : 1][HALF];   // output without D
};

// Differentiate a half, from the states before it, s, and the gradient g of decay * state after it.
DEVICE void differentiate(const States& s, States& g, States& dA, const States& A, const float4* pairs, const float* B,
                          const float* C, OfSteps& of, char* sums) {
  float decay[HALF][C_][K], state[HALF][C_][K];
#pragma unroll
  for (int t = 0; t < HALF; t++) {
    float b[K];
    load_states(b, B + t * N);
#pragma unroll
    for (int c = 0; c < C_; c++) {
      const float2 pair = *(const float2*)(pairs + t * PAIR_ROW + c * 8);
#pragma unroll
      for (int i = 0; i < K; i++) {
        decay[t][c][i] = ex2(pair.x * A[c][i]);
        state[t][c][i] = fmaf(decay[t][c][i], t ? state[t - 1][c][i] : s[c][i], pair.y * b[i]);
      }
    }
  }
  // What a step reads is loaded before the sums of the step after it are stored.
  float b[K], cc[K];
  float4 pair[C_];  // delta, delta * u, dy, derivative of softplus
  auto load = [&](int t) {
    load_states(b, B + t * N);
    load_states(cc, C + t * N);
#pragma unroll
    for (int c = 0; c < C_; c++) pair[c] = pairs[t * PAIR_ROW + c * 8];
  };
  load(HALF - 1);
#pragma unroll
  for (int t = HALF - 1; t >= 0; t--) {
    float dB[K], dC[K];
#pragma unroll
    for (int c = 0; c < C_; c++)
#pragma unroll
      for (int i = 0; i < K; i++) {
        const float ds = fmaf(pair[c].z, cc[i], g[c][i]);
        g[c][i] = decay[t][c][i] * ds;
        const float x = g[c][i] * (t ? state[t - 1][c][i] : s[c][i]);
        dA[c][i] = fmaf(x, pair[c].x, dA[c][i]);
        of.exponent[c][t] = i ? fmaf(x, A[c][i], of.exponent[c][t]) : x * A[c][i];
        of.added[c][t] = i ? fmaf(ds, b[i], of.added[c][t]) : ds * b[i];
        dB[i] = c ? fmaf(ds, pair[c].y, dB[i]) : ds * pair[c].y;
        dC[i] = c ? fmaf(state[t][c][i], pair[c].z, dC[i]) : state[t][c][i] * pair[c].z;
#if GATE
        of.y[c][t] = i ? fmaf(state[t][c][i], cc[i], of.y[c][t]) : state[t][c][i] * cc[i];
#endif
      }
    if (t) load(t - 1);
#pragma unroll
    for (int i = 0; i < NB; i++) {
      *(float4*)(sums + i * SUM_BLOCK + 2 * t * SUM_ROW) =
          make_float4(dB[4 * i], dB[4 * i + 1], dB[4 * i + 2], dB[4 * i + 3]);
      *(float4*)(sums + i * SUM_BLOCK + (2 * t + 1) * SUM_ROW) =
          make_float4(dC[4 * i], dC[4 * i + 1], dC[4 * i + 2], dC[4 * i + 3]);
    }
  }
}

// Sum over the four lanes of a channel; that of step t goes to the lane with quarter t.
DEVICE float over_quarters(const float (&x)[HALF], int quarter) {
  const bool high = quarter & 2, odd = quarter & 1;
  const float keep0 = high ? x[2] : x[0], keep1 = high ? x[3] : x[1];
  const float give0 = high ? x[0] : x[2], give1 = high ? x[1] : x[3];
  const float y0 = keep0 + __shfl_xor_sync(ALL_LANES, give0, 4), y1 = keep1 + __shfl_xor_sync(ALL_LANES, give1, 4);
  return (odd ? y1 : y0) + __shfl_xor_sync(ALL_LANES, odd ? y0 : y1, 2);
}

// Sums over the 8 channels of the lanes: lane (step of 4, B or C, 4 states of 16) gets four of a half.
DEVICE float4 over_channels(const char* sums, int lane) {
  const char* from = sums + lane / 4 * SUM_ROW + lane % 4 * 16;
  float4 x[8];
#pragma unroll
  for (int i = 0; i < 8; i++) x[i] = *(const float4*)(from + i * 64);
#pragma unroll
  for (int w = 4; w; w /= 2)
#pragma unroll
    for (int i = 0; i < w; i++) x[i].x += x[i + w].x, x[i].y += x[i + w].y, x[i].z += x[i + w].z, x[i].w += x[i + w].w;
  return x[0];
}

static_assert(SHARED_BYTES == CROSS + WARPS * WARP, "the launch gives as much shared memory as the kernel uses");

extern "C" __global__ void __launch_bounds__(32 * WARPS, MIN_BLOCKS) scan_backward(const __grid_constant__ Backward p) {
  extern __shared__ __align__(128) char shared[];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int lane_channel = (lane >> 2 & 6) | (lane & 1), quarter = lane >> 1 & 3;
  const Place at = place_of(p.parts, p.groups, p.chunks);
  // A warp without channels still takes part in the sums of its block.
  const int first = (at.part * WARPS + warp) * E, valid = FULL ? E : p.e - first;
  const int states = ALL_STATES ? N : p.n, h = at.g / p.routes, k = at.g % p.routes;

  char* mine = shared + CROSS + warp * WARP;
  float4* pairs = (float4*)(mine + STAGES * STAGE);  // delta, delta * u, dy, derivative of softplus
  char* sums = (char*)(pairs + TILE * PAIR_ROW);
  float* wide = (float*)(sums + BUFFERS * SUM_HALF);
  int* cells = (int*)(wide + WIDE / 4);
  float4* cross = (float4*)shared;
  const int pair_step = lane / E, pair_channel = lane % E;

  const Y* dy = p.dy + at.b * p.s_dyb + at.g * p.s_dyg + first;
  const U* u = p.u + at.b * p.s_ub + h * p.s_uh + first;
  const X* delta = p.delta + at.b * p.s_deltab + h * p.s_deltah + k * p.s_deltak + first;
  const X* B = p.B + at.b * p.s_Bb + h * p.s_Bh + k * p.s_Bk;
  const X* C = p.C + at.b * p.s_Cb + h * p.s_Ch + k * p.s_Ck;
  const Z* z = GATE ? p.z + at.b * p.s_zb + at.g * p.s_zg + first : nullptr;
  U_GRAD* du = p.du + at.b * p.s_dub + at.g * p.s_dug + first + lane_channel;
  X* ddelta = p.ddelta + at.b * p.s_ddeltab + h * p.s_ddeltah + k * p.s_ddeltak + first + lane_channel;
  Z* dz = GATE ? p.dz + at.b * p.s_dzb + at.g * p.s_dzg + first + lane_channel : nullptr;
  const i64 o_dB = at.part * p.s_dBpart + at.b * p.s_dBb + h * p.s_dBh + k * p.s_dBk;
  const i64* order = p.order + (ORDERED ? (i64)at.g * p.length : 0);
  const i64 channels = (i64)p.groups * p.e, channel0 = (i64)at.g * p.e + first;
  const i64 tile_size = channels * N;
  const SAVED* saved = p.saved + ((i64)at.b * ((p.length + TILE - 1) / TILE) * channels + channel0) * N;

  States A, g = {}, dA = {};
  load_A(A, p.A, at.g, p.e, p.n, first, valid, lane_channel, quarter);
  if (p.initial)
#pragma unroll
    for (int c = 0; c < C_; c++)
#pragma unroll
      for (int i = 0; i < K; i++) {
        const int channel = c * 8 + lane_channel, state = state_of(i, quarter);
        if (channel < valid && state < p.n)
          g[c][i] = p.initial[(((i64)at.b * p.groups + at.g) * p.n + state) * p.e + first + channel];
      }
  if (p.ends)
#pragma unroll 4
    for (int j = p.chunks - 1; j > at.chunk; j--)
      cross_chunk(g, A, p.ends, p.sums, ((i64)at.b * p.chunks + j) * channels + (i64)at.g * p.e, first, valid,
                  lane_channel, quarter);
  const float bias = p.bias && pair_channel < valid ? p.bias[channel0 + pair_channel] : 0.f;
  float D[C_], dD[C_] = {}, dbias[C_] = {};
#pragma unroll
  for (int c = 0; c < C_; c++) D[c] = p.D && c * 8 + lane_channel < valid ? p.D[channel0 + c * 8 + lane_channel] : 0.f;

  const int begin = at.chunk * p.chunk, end = min(begin + p.chunk, p.length);
  const bool whole = valid >= E && ALL_STATES;
  auto copy = [&](char* to, auto full, int start, int cell, int rows) {
    constexpr bool WHOLE = decltype(full)::value;
    stage_rows<WHOLE, E, ALIGN_Y>(to, dy, p.s_dyl, start, cell, rows, valid, lane);
    stage_rows<WHOLE, E, ALIGN_U>(to + AT_U, u, p.s_ul, start, cell, rows, valid, lane);
    stage_rows<WHOLE, E, ALIGN_DELTA>(to + AT_DELTA, delta, p.s_deltal, start, cell, rows, valid, lane);
#if GATE
    stage_rows<WHOLE, E, ALIGN_Z>(to + AT_Z, z, p.s_zl, start, cell, rows, valid, lane);
#endif
    stage_rows<WHOLE, N, ALIGN_BC>(to + AT_B, B, p.s_Bl, start, cell, rows, p.n, lane);
    stage_rows<WHOLE, N, ALIGN_BC>(to + AT_C, C, p.s_Cl, start, cell, rows, p.n, lane);
    constexpr int PER = 16 / sizeof(SAVED), ALL = E * N / PER;
    const SAVED* from = saved + start / TILE * tile_size;
#pragma unroll
    for (int j = 0; j < (ALL + 31) / 32; j++) {
      const int i = lane + 32 * j;
      if (ALL % 32 == 0 || i < ALL)
        copy_async<16>(to + AT_SAVED + i * 16, from + i * PER, WHOLE || i * PER / N < valid ? 16 : 0);
    }
  };
  auto stage = [&](int slot, int start, int cell) {
    const int rows = end - start;
    char* to = mine + slot * STAGE;
    if (start >= begin) {
      if (whole && rows >= TILE) copy(to, Whole(), start, cell, rows);
      else copy(to, Partial(), start, cell, rows);
      if (ORDERED && lane < TILE) cells[slot * TILE + lane] = cell;
    }
    commit_copies();
  };
  auto cell_at = [&](int start) { return cell_of(order, max(start, 0) + (lane & 7), p.length); };
  auto prepare = [&](const char* in, int rows) {
    float4 mine_pairs[PAIRS];
#pragma unroll
    for (int j = 0; j < PAIRS; j++) {
      const int i = lane + PAIR_LANES * j;
      mine_pairs[j] = make_float4(widen(((const X*)(in + AT_DELTA))[i]), widen(((const U*)(in + AT_U))[i]),
                                  widen(((const Y*)in)[i]), 1.f);
#if GATE
      const float gate = widen(((const Z*)(in + AT_Z))[i]);
      mine_pairs[j].z *= gate * sigmoid(gate);
#endif
    }
#pragma unroll
    for (int j = 0; j < PAIRS; j++) {
      float x = mine_pairs[j].x + bias;
#if SOFTPLUS
      const float exponential = bounded_exponential(x);
      mine_pairs[j].w = exponential * rcp(1.f + exponential);
      x = softplus(x, exponential);
#endif
      mine_pairs[j].x = x;
      mine_pairs[j].y *= x;
    }
    if (rows < TILE) {  // steps after the end pass the gradient on
      keep_branch();
#pragma unroll
      for (int j = 0; j < PAIRS; j++)
        if (pair_step + PAIR_STEPS * j >= rows) mine_pairs[j] = make_float4(0.f, 0.f, 0.f, 0.f);
    }
#pragma unroll
    for (int j = 0; j < PAIRS; j++)
      if (PAIR_LANES == 32 || lane < PAIR_LANES)
        pairs[(pair_step + PAIR_STEPS * j) * PAIR_ROW + pair_channel] = mine_pairs[j];
    widen_rows<TILE * 2 * N>(wide, (const X*)(in + AT_B), lane);
  };
  int t0 = begin + (end - begin - 1) / TILE * TILE;
  for (int i = 0; i < STAGES - 1; i++) stage(i, t0 - i * TILE, cell_at(t0 - i * TILE));
  int next = cell_at(t0 - (STAGES - 1) * TILE), slot = 0, to_slot = STAGES - 1, odd = 0;
  wait_copies<STAGES - 2>();
  __syncwarp();
  prepare(mine, end - t0);

#pragma unroll 1
  for (; t0 >= begin; t0 -= TILE, odd ^= 1) {
    __syncwarp();
    stage(to_slot, t0 - (STAGES - 1) * TILE, next);
    next = cell_at(t0 - STAGES * TILE);
    const char* in = mine + slot * STAGE;
    const int* lane_cells = cells + slot * TILE;
    to_slot = slot, slot = next_slot(slot);
    const Y* in_dy = (const Y*)in;
    const U* in_u = (const U*)(in + AT_U);
    const Z* in_z = (const Z*)(in + AT_Z);
    const int rows = end - t0;
    auto cell = [&](int row) { return ORDERED ? lane_cells[row] : t0 + row; };

    const float* lane_B = (sizeof(X) == 4 ? (const float*)(in + AT_B) : wide) + 4 * quarter;
    const float* lane_C = lane_B + TILE * N;
    const float4* lane_pairs = pairs + lane_channel;

    auto load_saved = [&](States& s) {
#pragma unroll
      for (int c = 0; c < C_; c++)
#pragma unroll
        for (int i = 0; i < NB; i++) {
          const SAVED* from = (const SAVED*)(in + AT_SAVED) + (c * 8 + lane_channel) * N + 16 * i + 4 * quarter;
          const float4 x = widen(*(const Four<SAVED>*)from);
          s[c][4 * i] = x.x, s[c][4 * i + 1] = x.y, s[c][4 * i + 2] = x.z, s[c][4 * i + 3] = x.w;
        }
    };
    // Gradients of u, delta and z: the lane has the step of the half that is the number of its quarter.
    auto finish = [&](const OfSteps& of, int half) {
      const int row = half * HALF + quarter, to = cell(row);
      U_GRAD* to_u = row_of(du, to, p.s_dul);
      X* to_delta = row_of(ddelta, to, p.s_ddeltal);
#pragma unroll
      for (int c = 0; c < C_; c++) {
        const float4 pair = lane_pairs[row * PAIR_ROW + c * 8];
        const int i = row * E + c * 8 + lane_channel;
        const float of_u = widen(in_u[i]), added = over_quarters(of.added[c], quarter);
        const float gu = fmaf(added, pair.x, D[c] * pair.z);
        const float gdelta = fmaf(over_quarters(of.exponent[c], quarter), LN_2, added * of_u) * pair.w;
        const bool ok = row < rows && (FULL || c * 8 + lane_channel < valid);
        dD[c] = fmaf(pair.z, of_u, dD[c]);
        dbias[c] += gdelta;  // zero after the end
        if (ok) to_u[c * 8] = narrow<U_GRAD>(gu);
        if (ok) to_delta[c * 8] = narrow<X>(gdelta);
#if GATE
        const float out = fmaf(D[c], of_u, over_quarters(of.y[c], quarter));
        const float gate = widen(in_z[i]), open = sigmoid(gate);
        if (ok) row_of(dz, to, p.s_dzl)[c * 8] = narrow<Z>(widen(in_dy[i]) * out * open * fmaf(gate, 1.f - open, 1.f));
#endif
      }
    };
    float4 total[2][NB];
    auto run_half = [&](int half, States& s) {
      OfSteps of;
      char* to = sums + (BUFFERS == 2 ? half : 0) * SUM_HALF;
      const int t = half * HALF;
      differentiate(s, g, dA, A, lane_pairs + t * PAIR_ROW, lane_B + t * N, lane_C + t * N, of,
                    to + (lane_channel * 4 + quarter) * 16);
      finish(of, half);
      if (half == 0) wait_copies<STAGES - 2>();
      __syncwarp();
#pragma unroll
      for (int i = 0; i < NB; i++) total[half][i] = over_channels(to + i * SUM_BLOCK, lane);
      if (BUFFERS == 1 && half == 1) __syncwarp();
    };
    {
      States s;
      load_saved(s);
      walk(s, A, lane_pairs, lane_B);
      run_half(1, s);
      load_saved(s);
      run_half(0, s);
    }
    // The next tile, in place of the pairs that nobody reads any more, while the sums of this one are added.
    prepare(mine + slot * STAGE, TILE);

    // sum: gradients of B and C
    if (WARPS == 1) {
#pragma unroll
      for (int half = 0; half < 2; half++) {
        const int row = half * HALF + lane / 8;
        BC_GRAD* to = row_of((lane & 4 ? p.dC : p.dB) + o_dB, cell(row), p.s_dBl) + lane % 4 * 4;
#pragma unroll
        for (int i = 0; i < NB; i++) {
          const float4 x = total[half][i];
          if (row < rows) {
#if VECTOR_BC
            if (ALL_STATES || lane % 4 * 4 + 16 * i < states)
              *(Four<BC_GRAD>*)(to + 16 * i) = narrow4<BC_GRAD>(x.x, x.y, x.z, x.w);
#else
            const float of[4] = {x.x, x.y, x.z, x.w};
#pragma unroll
            for (int j = 0; j < 4; j++)
              if (lane % 4 * 4 + 16 * i + j < states) to[16 * i + j] = narrow<BC_GRAD>(of[j]);
#endif
          }
        }
      }
    } else {
      float4* to = cross + odd * 2 * WARPS * 32;
      to[warp * 32 + lane] = total[0][0];
      to[(WARPS + warp) * 32 + lane] = total[1][0];
      __syncthreads();
      constexpr int PER = WARPS >= 8 ? 1 : WARPS >= 4 ? 2 : 4;  // numbers of a thread, of 2 halves x 32 lanes x 4
      const int x = threadIdx.x * PER, half = x / 128, y = x % 128, row = half * HALF + y / 32;
      if (x < 256) {
        float r[PER] = {};
#pragma unroll
        for (int w = 0; w < WARPS; w++)
#pragma unroll
          for (int v = 0; v < PER; v++) r[v] += ((const float*)to)[(half * WARPS + w) * 128 + y + v];
        BC_GRAD* out = row_of((y / 16 & 1 ? p.dC : p.dB) + o_dB, cell(row), p.s_dBl) + y % 16;
        if (row < rows)
#pragma unroll
          for (int v = 0; v < PER; v++)
            if (ALL_STATES || y % 16 + v < states) out[v] = narrow<BC_GRAD>(r[v]);
      }
    }
  }

  // Sums over the steps of this chunk: a row (dA, dD, dbias).
  const i64 row = ((i64)at.b * p.chunks + at.chunk) * p.s_row;
#pragma unroll
  for (int c = 0; c < C_; c++)
#pragma unroll
    for (int i = 0; i < K; i++) {
      const int channel = c * 8 + lane_channel, state = state_of(i, quarter);
      if (channel < valid && state < p.n) p.dA[row + (i64)(at.g * p.n + state) * p.e + first + channel] = dA[c][i];
    }
#pragma unroll
  for (int c = 0; c < C_; c++) {
#pragma unroll
    for (int x = 2; x <= 4; x *= 2) {
      dD[c] += __shfl_xor_sync(ALL_LANES, dD[c], x);
      dbias[c] += __shfl_xor_sync(ALL_LANES, dbias[c], x);
    }
    if (quarter == 0 && c * 8 + lane_channel < valid) {
      const i64 to = row + channel0 + c * 8 + lane_channel;
      if (p.dD) p.dD[to] = dD[c];
      if (p.dbias) p.dbias[to] = dbias[c];
    }
  }
}
