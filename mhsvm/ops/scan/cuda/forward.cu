// Outputs of the scan, the last state and, with SAVE, the state before every tile. The legend is in scan.cuh.
#include "scan.cuh"

struct Forward {
  const U* u; const X* delta; const float* A; const X* B; const X* C; const float* D; const Z* z; const float* bias;
  const i64* order; const float* ends; const float* sums; Y* y; SAVED* saved; float* last;
  i64 s_ub, s_uh, s_deltab, s_deltah, s_deltak, s_Bb, s_Bh, s_Bk, s_Cb, s_Ch, s_Ck, s_zb, s_zg, s_yb, s_yg;
  int s_ul, s_deltal, s_Bl, s_Cl, s_zl, s_yl, length, chunk, chunks, groups, routes, e, n, parts;
};

// A stage in shared memory: u, delta, z of TILE x E, then B and C of TILE x N.
constexpr int AT_DELTA = TILE * E * sizeof(U), AT_Z = AT_DELTA + TILE * E * sizeof(X);
constexpr int AT_B = AT_Z + (GATE ? TILE * E * sizeof(Z) : 0), AT_C = AT_B + TILE * N * sizeof(X);
constexpr int STAGE = AT_C + TILE * N * sizeof(X);
constexpr int WIDE = sizeof(X) == 4 ? 0 : TILE * 2 * N * 4;  // B and C as float32
// Two of each: while a tile is walked, the next one is prepared and the one before it is summed.
constexpr int PREPARED = TILE * E * 8 + TILE * E * 16 + WIDE;
constexpr int WARP = STAGES * STAGE + 2 * PREPARED + STAGES * TILE * 4;

static_assert(SHARED_BYTES == WARPS * WARP, "the launch gives as much shared memory as the kernel uses");

extern "C" __global__ void __launch_bounds__(32 * WARPS, MIN_BLOCKS) scan_forward(const __grid_constant__ Forward p) {
  extern __shared__ __align__(128) char shared[];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int lane_channel = (lane >> 2 & 6) | (lane & 1), quarter = lane >> 1 & 3;
  const Place at = place_of(p.parts, p.groups, p.chunks);
  const int first = (at.part * WARPS + warp) * E, valid = FULL ? E : p.e - first;
  if (!FULL && valid <= 0) return;
  const int h = at.g / p.routes, k = at.g % p.routes;

  char* mine = shared + warp * WARP;
  char* prepared = mine + STAGES * STAGE;
  int* cells = (int*)(prepared + 2 * PREPARED);  // STAGES x TILE
  // In PREPARED: (delta, delta * u), TILE x E; an output's four parts, TILE x E x 4; B and C as float32, if they are
  // not.
  auto pairs_in = [](char* at) { return (float2*)at; };
  auto quarters_in = [](char* at) { return (float*)(at + TILE * E * 8); };
  auto wide_in = [](char* at) { return (float*)(at + TILE * E * 24); };
  const int pair_step = lane / E, pair_channel = lane % E;

  const U* u = p.u + at.b * p.s_ub + h * p.s_uh + first;
  const X* delta = p.delta + at.b * p.s_deltab + h * p.s_deltah + k * p.s_deltak + first;
  const X* B = p.B + at.b * p.s_Bb + h * p.s_Bh + k * p.s_Bk;
  const X* C = p.C + at.b * p.s_Cb + h * p.s_Ch + k * p.s_Ck;
  const Z* z = GATE ? p.z + at.b * p.s_zb + at.g * p.s_zg + first : nullptr;
  Y* y = p.y + at.b * p.s_yb + at.g * p.s_yg + first + pair_channel;
  const i64* order = p.order + (ORDERED ? (i64)at.g * p.length : 0);
  const i64 channels = (i64)p.groups * p.e, channel0 = (i64)at.g * p.e + first;

  States A, s = {};
  load_A(A, p.A, at.g, p.e, p.n, first, valid, lane_channel, quarter);
  if (p.ends)
#pragma unroll 4
    for (int j = 0; j < at.chunk; j++)
      cross_chunk(s, A, p.ends, p.sums, ((i64)at.b * p.chunks + j) * channels + (i64)at.g * p.e, first, valid,
                  lane_channel, quarter);
  const bool has_pair_channel = FULL || pair_channel < valid;
  const float bias = p.bias && has_pair_channel ? p.bias[channel0 + pair_channel] : 0.f;
  const float D = p.D && has_pair_channel ? p.D[channel0 + pair_channel] : 0.f;

  const int begin = at.chunk * p.chunk, end = min(begin + p.chunk, p.length);
  const bool whole = valid >= E && ALL_STATES;
  auto copy = [&](char* to, auto full, int start, int cell, int rows) {
    constexpr bool WHOLE = decltype(full)::value;
    stage_rows<WHOLE, E, ALIGN_U>(to, u, p.s_ul, start, cell, rows, valid, lane);
    stage_rows<WHOLE, E, ALIGN_DELTA>(to + AT_DELTA, delta, p.s_deltal, start, cell, rows, valid, lane);
#if GATE
    stage_rows<WHOLE, E, ALIGN_Z>(to + AT_Z, z, p.s_zl, start, cell, rows, valid, lane);
#endif
    stage_rows<WHOLE, N, ALIGN_BC>(to + AT_B, B, p.s_Bl, start, cell, rows, p.n, lane);
    stage_rows<WHOLE, N, ALIGN_BC>(to + AT_C, C, p.s_Cl, start, cell, rows, p.n, lane);
  };
  auto stage = [&](int slot, int start, int cell) {
    const int rows = end - start;
    char* to = mine + slot * STAGE;
    if (whole && rows >= TILE) copy(to, Whole(), start, cell, rows);
    else if (rows > 0) copy(to, Partial(), start, cell, rows);
    if (ORDERED && lane < TILE) cells[slot * TILE + lane] = cell;
    commit_copies();
  };
  auto cell_at = [&](int start) { return cell_of(order, start + (lane & 7), p.length); };

  // What a lane keeps of its pairs until their outputs are summed: D * u, and the gate.
  struct Kept { float direct[PAIRS], gate[GATE ? PAIRS : 1]; };
  // Steps after the end do not change the state.
  auto compute_pairs = [&](float2 (&pair)[PAIRS], Kept& kept, int rows) {
#pragma unroll
    for (int j = 0; j < PAIRS; j++) {
      float x = pair[j].x + bias;
#if SOFTPLUS
      x = softplus(x, bounded_exponential(x));
#endif
      kept.direct[j] = D * pair[j].y;
      pair[j] = make_float2(x, x * pair[j].y);
    }
    if (rows < TILE) {
      keep_branch();
#pragma unroll
      for (int j = 0; j < PAIRS; j++)
        if (pair_step + PAIR_STEPS * j >= rows) pair[j] = make_float2(0.f, 0.f);
    }
  };
  auto load_pairs = [&](float2 (&pair)[PAIRS], Kept& kept, const char* in) {
#pragma unroll
    for (int j = 0; j < PAIRS; j++) {
      const int i = lane + PAIR_LANES * j;
      pair[j] = make_float2(widen(((const X*)(in + AT_DELTA))[i]), widen(((const U*)in)[i]));
#if GATE
      const float z_of_pair = widen(((const Z*)(in + AT_Z))[i]);
      kept.gate[j] = z_of_pair * sigmoid(z_of_pair);
#endif
    }
  };
  auto store_pairs = [&](const float2 (&pair)[PAIRS], char* to) {
#pragma unroll
    for (int j = 0; j < PAIRS; j++)
      if (PAIR_LANES == 32 || lane < PAIR_LANES) pairs_in(to)[lane + PAIR_LANES * j] = pair[j];
  };
  auto load_sums = [&](float (&out)[PAIRS], char* from) {
#pragma unroll
    for (int j = 0; j < PAIRS; j++) {
      const float4 x = ((const float4*)quarters_in(from))[lane + PAIR_LANES * j];
      out[j] = (x.x + x.y) + (x.z + x.w);
    }
  };
  // Outputs of the tile that starts at t0.
  auto write = [&](const float (&sum)[PAIRS], const Kept& kept, const int* lane_cells, int t0) {
    auto store = [&](int j) {
      const int step = pair_step + PAIR_STEPS * j;
      float out = sum[j] + kept.direct[j];
      if (GATE) out *= kept.gate[GATE ? j : 0];
      *row_of(y, ORDERED ? lane_cells[step & 7] : t0 + step, p.s_yl) = narrow<Y>(out);
    };
    if ((PAIR_LANES == 32 || lane < PAIR_LANES) && has_pair_channel) {
      if (t0 + TILE <= end) {
#pragma unroll
        for (int j = 0; j < PAIRS; j++) store(j);
      } else {
#pragma unroll
        for (int j = 0; j < PAIRS; j++)
          if (t0 + pair_step + PAIR_STEPS * j < end) store(j);
      }
    }
  };

  for (int i = 0; i < STAGES - 1; i++) stage(i, begin + i * TILE, cell_at(begin + i * TILE));
  int next = cell_at(begin + (STAGES - 1) * TILE);
  Kept now, before;  // of the tile that is walked, and of the one before it
  wait_copies<STAGES - 2>();
  __syncwarp();
  {
    float2 pair[PAIRS];
    load_pairs(pair, now, mine);
    compute_pairs(pair, now, end - begin);
    store_pairs(pair, prepared);
    widen_rows<TILE * 2 * N>(wide_in(prepared), (const X*)(mine + AT_B), lane);
  }
  int slot = 0, slot_before = STAGES - 1;
  char *with_now = prepared, *with_next = prepared + PREPARED;

  for (int t0 = begin; t0 < end; t0 += TILE) {
    wait_copies<STAGES - 3>();
    __syncwarp();
    const int slot_after = next_slot(slot);
    const char *in = mine + slot * STAGE, *in_next = mine + slot_after * STAGE;
    float2 pair[PAIRS];
    Kept after;
    float sum[PAIRS];
    load_pairs(pair, after, in_next);
    if (t0 > begin) {
      load_sums(sum, with_next);
      write(sum, before, cells + slot_before * TILE, t0 - TILE);
    }
#if ORDERED
    __syncwarp();  // the cells that were read are overwritten
#endif
    stage(slot_before, t0 + (STAGES - 1) * TILE, next);
    next = cell_at(t0 + STAGES * TILE);

#if SAVE
    SAVED* saved = p.saved + (((i64)at.b * ((p.length + TILE - 1) / TILE) + t0 / TILE) * channels + channel0) * N;
#pragma unroll
    for (int c = 0; c < C_; c++)
#pragma unroll
      for (int i = 0; i < NB; i++) {
        const float* x = s[c] + 4 * i;
        void* to = saved + (c * 8 + lane_channel) * N + 16 * i + 4 * quarter;
        if (FULL || c * 8 + lane_channel < valid) {
          if (sizeof(SAVED) == 4)
            store_streaming((float4*)to, make_float4(x[0], x[1], x[2], x[3]));
          else
            *(Four<SAVED>*)to = narrow4<SAVED>(x[0], x[1], x[2], x[3]);
        }
      }
#endif

    // walk
    const float* lane_B = (sizeof(X) == 4 ? (const float*)(in + AT_B) : wide_in(with_now)) + 4 * quarter;
    const float* lane_C = lane_B + TILE * N;
    const float2* lane_pairs = pairs_in(with_now) + lane_channel;
    float part[TILE][C_];
#pragma unroll
    for (int t = 0; t < TILE; t++) {
      float b[K], cc[K];
      load_states(b, lane_B + t * N);
      load_states(cc, lane_C + t * N);
#pragma unroll
      for (int c = 0; c < C_; c++) {
        const float2 of_pair = lane_pairs[t * E + c * 8];
#pragma unroll
        for (int i = 0; i < K; i++) {
          s[c][i] = fmaf(ex2(of_pair.x * A[c][i]), s[c][i], of_pair.y * b[i]);
          part[t][c] = i ? fmaf(s[c][i], cc[i], part[t][c]) : s[c][i] * cc[i];
        }
      }
    }
    compute_pairs(pair, after, end - t0 - TILE);
    store_pairs(pair, with_next);
    widen_rows<TILE * 2 * N>(wide_in(with_next), (const X*)(in_next + AT_B), lane);
    float* lane_quarters = quarters_in(with_now) + lane_channel * 4 + quarter;
#pragma unroll
    for (int t = 0; t < TILE; t++)
#pragma unroll
      for (int c = 0; c < C_; c++) lane_quarters[(t * E + c * 8) * 4] = part[t][c];

    before = now, now = after;
    slot_before = slot, slot = slot_after;
    char* swapped = with_now;
    with_now = with_next, with_next = swapped;
  }
  __syncwarp();
  float sum[PAIRS];
  load_sums(sum, with_next);
  write(sum, before, cells + slot_before * TILE, begin + (end - begin - 1) / TILE * TILE);

  if (at.chunk == p.chunks - 1)
#pragma unroll
    for (int c = 0; c < C_; c++)
#pragma unroll
      for (int i = 0; i < K; i++) {
        const int channel = c * 8 + lane_channel, state = state_of(i, quarter);
        if (channel < valid && state < p.n)
          p.last[(((i64)at.b * p.groups + at.g) * p.e + first + channel) * p.n + state] = s[c][i];
      }
}
