// Outputs of the scan, the last state and, with SAVE, the state before every span. The legend is in scan.cuh.
#include "scan.cuh"

struct Forward {
  const U* u; const X* delta; const float* A; const X* B; const X* C; const float* D; const Z* z; const float* bias;
  const i64* order; const float* ends; const float* sums; Y* y; SAVED* saved; float* last;
  i64 s_ub, s_uh, s_deltab, s_deltah, s_deltak, s_Bb, s_Bh, s_Bk, s_Cb, s_Ch, s_Ck, s_zb, s_zg, s_yb, s_yg;
  int s_ul, s_deltal, s_Bl, s_Cl, s_zl, s_yl, length, chunk, chunks, groups, routes, e, n, parts;
};

// A stage in shared memory: u, delta, z of SPAN x E, then B and C of SPAN x N.
constexpr int AT_DELTA = SPAN * E * sizeof(U), AT_Z = AT_DELTA + SPAN * E * sizeof(X);
constexpr int AT_B = AT_Z + (GATE ? SPAN * E * sizeof(Z) : 0), AT_C = AT_B + SPAN * N * sizeof(X);
constexpr int STAGE = AT_C + SPAN * N * sizeof(X);
constexpr int WIDE = sizeof(X) == 4 ? 0 : SPAN * 2 * N * 4;  // B and C as float32
constexpr int WARP = STAGES * STAGE + SPAN * E * 8 + SPAN * E * 16 + WIDE + STAGES * SPAN * 4;

static_assert(SHARED_BYTES == WARPS * WARP, "the launch gives as much shared memory as the kernel uses");

extern "C" __global__ void __launch_bounds__(32 * WARPS, MIN_BLOCKS) scan_forward(const __grid_constant__ Forward p) {
  extern __shared__ __align__(128) char shared[];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int lane_channel = (lane >> 2 & 6) | (lane & 1), quarter = lane >> 1 & 3;
  const Place at = place_of(p.parts, p.groups, p.chunks);
  const int first = (at.part * WARPS + warp) * E, valid = FULL ? E : p.e - first;
  if (!FULL && valid <= 0) return;
  const int states = ALL_STATES ? N : p.n, h = at.g / p.routes, k = at.g % p.routes;

  char* mine = shared + warp * WARP;
  float2* pairs = (float2*)(mine + STAGES * STAGE);  // (delta, delta * u), SPAN x E
  float* quarters = (float*)(pairs + SPAN * E);      // an output's four parts, SPAN x E x 4
  float* wide = quarters + SPAN * E * 4;
  int* cells = (int*)(wide + WIDE / 4);              // STAGES x SPAN
  const float2* lane_pairs = pairs + lane_channel;
  float* lane_quarters = quarters + lane_channel * 4 + quarter;
  const int pair_step = lane / E, pair_channel = lane % E;

  const U* u = p.u + at.b * p.s_ub + h * p.s_uh;
  const X* delta = p.delta + at.b * p.s_deltab + h * p.s_deltah + k * p.s_deltak;
  const X* B = p.B + at.b * p.s_Bb + h * p.s_Bh + k * p.s_Bk;
  const X* C = p.C + at.b * p.s_Cb + h * p.s_Ch + k * p.s_Ck;
  const Z* z = GATE ? p.z + at.b * p.s_zb + at.g * p.s_zg : nullptr;
  Y* y = p.y + at.b * p.s_yb + at.g * p.s_yg + first + pair_channel;
  const i64* order = p.order + (ORDERED ? (i64)at.g * p.length : 0);
  const i64 channels = (i64)p.groups * p.e, channel0 = (i64)at.g * p.e + first;

  States A, s = {};
  load_A(A, p.A, at.g, p.e, p.n, first, valid, lane_channel, quarter);
  if (p.ends)
    for (int j = 0; j < at.chunk; j++)
      cross_chunk(s, A, p.ends, p.sums, ((i64)at.b * p.chunks + j) * channels + (i64)at.g * p.e, first, valid,
                  lane_channel, quarter);
  const bool has_pair_channel = FULL || pair_channel < valid;
  const float bias = p.bias && has_pair_channel ? p.bias[channel0 + pair_channel] : 0.f;
  const float D = p.D && has_pair_channel ? p.D[channel0 + pair_channel] : 0.f;

  const int begin = at.chunk * p.chunk, end = min(begin + p.chunk, p.length), spans = (end - begin + SPAN - 1) / SPAN;
  auto stage = [&](int i, int cell) {
    if (i < spans) {
      char* to = mine + i % STAGES * STAGE;
      const int rows = end - begin - i * SPAN;
      stage_rows<E, ALIGN_U>(to, u, p.s_ul, first, cell, rows, valid, lane);
      stage_rows<E, ALIGN_DELTA>(to + AT_DELTA, delta, p.s_deltal, first, cell, rows, valid, lane);
#if GATE
      stage_rows<E, ALIGN_Z>(to + AT_Z, z, p.s_zl, first, cell, rows, valid, lane);
#endif
      stage_rows<N, ALIGN_BC>(to + AT_B, B, p.s_Bl, 0, cell, rows, states, lane);
      stage_rows<N, ALIGN_BC>(to + AT_C, C, p.s_Cl, 0, cell, rows, states, lane);
      if (ORDERED && lane < SPAN) cells[i % STAGES * SPAN + lane] = cell;
    }
    commit_copies();
  };
  auto cell_at = [&](int i) { return cell_of(order, begin + i * SPAN + (lane & 7), p.length); };
  for (int i = 0; i < STAGES - 1; i++) stage(i, cell_at(i));
  int next = cell_at(STAGES - 1);

  for (int it = 0; it < spans; it++) {
    wait_copies<STAGES - 2>();
    __syncwarp();
    stage(it + STAGES - 1, next);
    next = cell_at(it + STAGES);
    const char* in = mine + it % STAGES * STAGE;
    const U* in_u = (const U*)in + lane;
    const int t0 = begin + it * SPAN, rows = end - t0;

#if SAVE
    SAVED* saved = p.saved + (((i64)at.b * ((p.length + SPAN - 1) / SPAN) + t0 / SPAN) * channels + channel0) * N;
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

    // prepare
    float2 mine_pairs[PAIRS];
#pragma unroll
    for (int j = 0; j < PAIRS; j++)
      mine_pairs[j] = make_float2(widen(((const X*)(in + AT_DELTA))[lane + PAIR_LANES * j]), widen(in_u[PAIR_LANES * j]));
#pragma unroll
    for (int j = 0; j < PAIRS; j++) {
      float x = mine_pairs[j].x + bias;
#if SOFTPLUS
      x = softplus(x, bounded_exponential(x));
#endif
      mine_pairs[j] = make_float2(x, x * mine_pairs[j].y);
    }
    if (rows < SPAN) {  // steps after the end do not change the state
      keep_branch();
#pragma unroll
      for (int j = 0; j < PAIRS; j++)
        if (pair_step + PAIR_STEPS * j >= rows) mine_pairs[j] = make_float2(0.f, 0.f);
    }
#pragma unroll
    for (int j = 0; j < PAIRS; j++)
      if (PAIR_LANES == 32 || lane < PAIR_LANES) pairs[lane + PAIR_LANES * j] = mine_pairs[j];
    const float* lane_B = widen_rows<SPAN * 2 * N>(wide, (const X*)(in + AT_B), lane) + 4 * quarter;
    const float* lane_C = lane_B + SPAN * N;
    __syncwarp();

    // walk
    float part[SPAN][C_];
#pragma unroll
    for (int t = 0; t < SPAN; t++) {
      float b[K], cc[K];
      load_states(b, lane_B + t * N);
      load_states(cc, lane_C + t * N);
#pragma unroll
      for (int c = 0; c < C_; c++) {
        const float2 pair = lane_pairs[t * E + c * 8];
#pragma unroll
        for (int i = 0; i < K; i++) {
          s[c][i] = fmaf(ex2(pair.x * A[c][i]), s[c][i], pair.y * b[i]);
          part[t][c] = i ? fmaf(s[c][i], cc[i], part[t][c]) : s[c][i] * cc[i];
        }
      }
    }

    // sum
#pragma unroll
    for (int t = 0; t < SPAN; t++)
#pragma unroll
      for (int c = 0; c < C_; c++) lane_quarters[(t * E + c * 8) * 4] = part[t][c];
    __syncwarp();
#pragma unroll
    for (int j = 0; j < PAIRS; j++) {
      const int step = pair_step + PAIR_STEPS * j;
      const float4 x = ((const float4*)quarters)[lane + PAIR_LANES * j];
      float out = fmaf(D, widen(in_u[PAIR_LANES * j]), (x.x + x.y) + (x.z + x.w));
#if GATE
      const float gate = widen(((const Z*)(in + AT_Z))[lane + PAIR_LANES * j]);
      out *= gate * sigmoid(gate);
#endif
      const int cell = ORDERED ? cells[it % STAGES * SPAN + (step & 7)] : t0 + step;
      if ((PAIR_LANES == 32 || lane < PAIR_LANES) && step < rows && has_pair_channel)
        *row_of(y, cell, p.s_yl) = narrow<Y>(out);
    }
  }

  if (at.chunk == p.chunks - 1)
#pragma unroll
    for (int c = 0; c < C_; c++)
#pragma unroll
      for (int i = 0; i < K; i++) {
        const int channel = c * 8 + lane_channel, state = state_of(i, quarter);
        if (channel < valid && state < p.n)
          p.last[(((i64)at.b * p.groups + at.g) * p.n + state) * p.e + first + channel] = s[c][i];
      }
}
