// Where l is split into chunks: the state at the end of a chunk that starts from zero, (b, chunks, g, e, N), and the
// chunk's sum of delta, (b, chunks, g, e). The kernels that follow compute from these the state that enters their
// chunk; the decay across a chunk is exp(A * sum of delta), never a product of rounded exponentials.
//
// With REVERSE, for the backward pass: the gradient of decay * state before the first step of a chunk after which it is
// zero; x is the gradient of y, gated by z, and B is C. The legend is in scan.cuh.
#include "scan.cuh"

#if REVERSE
typedef Y In;
constexpr int ALIGN_IN = ALIGN_Y;
#else
typedef U In;
constexpr int ALIGN_IN = ALIGN_U;
#endif

struct Chunk {
  const In* x; const X* delta; const float* A; const X* B; const Z* z; const float* bias; const i64* order;
  float* ends; float* sums;
  i64 s_xb, s_xg, s_deltab, s_deltah, s_deltak, s_Bb, s_Bh, s_Bk, s_zb, s_zg;
  int s_xl, s_deltal, s_Bl, s_zl, length, chunk, chunks, groups, routes, e, n, parts;
};

constexpr bool GATED = GATE && REVERSE;
constexpr int AT_DELTA = TILE * E * sizeof(In), AT_Z = AT_DELTA + TILE * E * sizeof(X);
constexpr int AT_B = AT_Z + (GATED ? TILE * E * sizeof(Z) : 0);
constexpr int STAGE = AT_B + TILE * N * sizeof(X);
constexpr int WIDE = sizeof(X) == 4 ? 0 : TILE * N * 4;  // B as float32

// Two of pairs and wide numbers: while a tile is walked, the next one is prepared.
constexpr int PREPARED = TILE * E * 8 + WIDE;
static_assert(SHARED_BYTES == STAGES * STAGE + 2 * PREPARED,
              "the launch gives as much shared memory as the kernel uses");

extern "C" __global__ void __launch_bounds__(32, MIN_BLOCKS) scan_chunk(const __grid_constant__ Chunk p) {
  extern __shared__ __align__(128) char shared[];
  const int lane = threadIdx.x % 32;
  const int lane_channel = (lane >> 2 & 6) | (lane & 1), quarter = lane >> 1 & 3;
  // Nothing follows the last chunk, in the direction of the scan.
  Place at = place_of(p.parts, p.groups, p.chunks - 1);
  at.chunk += REVERSE;
  const int first = at.part * E, valid = FULL ? E : p.e - first;
  const int h = at.g / p.routes, k = at.g % p.routes;
  char *with_now = shared + STAGES * STAGE, *with_next = with_now + PREPARED;
  auto pairs_in = [](char* at) { return (float2*)at; };  // (delta, delta * u), or (delta, dy)
  auto wide_in = [](char* at) { return (float*)(at + TILE * E * 8); };
  const int pair_step = lane / E, pair_channel = lane % E;

  const In* x = p.x + at.b * p.s_xb + (REVERSE ? at.g : h) * p.s_xg + first;
  const X* delta = p.delta + at.b * p.s_deltab + h * p.s_deltah + k * p.s_deltak + first;
  const X* B = p.B + at.b * p.s_Bb + h * p.s_Bh + k * p.s_Bk;
  const Z* z = GATED ? p.z + at.b * p.s_zb + at.g * p.s_zg + first : nullptr;
  const i64* order = p.order + (ORDERED ? (i64)at.g * p.length : 0);
  States A, s = {};
  load_A(A, p.A, at.g, p.e, p.n, first, valid, lane_channel, quarter);
  const float bias = p.bias && pair_channel < valid ? p.bias[(i64)at.g * p.e + first + pair_channel] : 0.f;
  float sum = 0.f;

  const int begin = at.chunk * p.chunk, end = min(begin + p.chunk, p.length), tiles = (end - begin + TILE - 1) / TILE;
  constexpr int STEP = REVERSE ? -TILE : TILE;
  const bool whole = valid >= E && ALL_STATES;
  auto copy = [&](char* to, auto full, int start, int cell, int rows) {
    constexpr bool WHOLE = decltype(full)::value;
    stage_rows<WHOLE, E, ALIGN_IN>(to, x, p.s_xl, start, cell, rows, valid, lane);
    stage_rows<WHOLE, E, ALIGN_DELTA>(to + AT_DELTA, delta, p.s_deltal, start, cell, rows, valid, lane);
#if GATE && REVERSE
    stage_rows<WHOLE, E, ALIGN_Z>(to + AT_Z, z, p.s_zl, start, cell, rows, valid, lane);
#endif
    stage_rows<WHOLE, N, ALIGN_BC>(to + AT_B, B, p.s_Bl, start, cell, rows, p.n, lane);
  };
  auto stage = [&](int slot, int start, int cell) {
    const int rows = end - start;
    char* to = shared + slot * STAGE;
    if (start >= begin) {
      if (whole && rows >= TILE) copy(to, Whole(), start, cell, rows);
      else if (rows > 0) copy(to, Partial(), start, cell, rows);
    }
    commit_copies();
  };
  auto cell_at = [&](int start) { return cell_of(order, max(start, 0) + (lane & 7), p.length); };
  auto load_pairs = [&](float2 (&pair)[PAIRS], const char* in) {
#pragma unroll
    for (int j = 0; j < PAIRS; j++) {
      const int i = lane + PAIR_LANES * j;
      pair[j] = make_float2(widen(((const X*)(in + AT_DELTA))[i]), widen(((const In*)in)[i]));
#if GATE && REVERSE
      const float gate = widen(((const Z*)(in + AT_Z))[i]);
      pair[j].y *= gate * sigmoid(gate);
#endif
    }
  };
  auto store_pairs = [&](float2 (&pair)[PAIRS], int rows, const char* in, char* to) {
#pragma unroll
    for (int j = 0; j < PAIRS; j++) {
      float d = pair[j].x + bias;
#if SOFTPLUS
      d = softplus(d, bounded_exponential(d));
#endif
      pair[j].x = pair_step + PAIR_STEPS * j < rows ? d : 0.f;
      if (!REVERSE) pair[j].y *= pair[j].x;
      sum += pair[j].x;
    }
#pragma unroll
    for (int j = 0; j < PAIRS; j++)
      if (PAIR_LANES == 32 || lane < PAIR_LANES) pairs_in(to)[lane + PAIR_LANES * j] = pair[j];
    widen_rows<TILE * N>(wide_in(to), (const X*)(in + AT_B), lane);
  };

  int t0 = REVERSE ? begin + (tiles - 1) * TILE : begin;
  for (int i = 0; i < STAGES - 1; i++) stage(i, t0 + i * STEP, cell_at(t0 + i * STEP));
  int next = cell_at(t0 + (STAGES - 1) * STEP), slot = 0, slot_before = STAGES - 1;
  wait_copies<STAGES - 2>();
  __syncwarp();
  float2 pair[PAIRS];
  load_pairs(pair, shared);
  store_pairs(pair, end - t0, shared, with_now);

  for (; REVERSE ? t0 >= begin : t0 < end; t0 += STEP) {
    wait_copies<STAGES - 3>();
    __syncwarp();
    stage(slot_before, t0 + (STAGES - 1) * STEP, next);
    next = cell_at(t0 + STAGES * STEP);
    const int slot_after = next_slot(slot);
    const char *in = shared + slot * STAGE, *in_next = shared + slot_after * STAGE;
    load_pairs(pair, in_next);

    // walk
    const float* lane_B = (sizeof(X) == 4 ? (const float*)(in + AT_B) : wide_in(with_now)) + 4 * quarter;
    const float2* lane_pairs = pairs_in(with_now) + lane_channel;
#pragma unroll
    for (int i = 0; i < TILE; i++) {
      const int t = REVERSE ? TILE - 1 - i : i;
      float b[K];
      load_states(b, lane_B + t * N);
#pragma unroll
      for (int c = 0; c < C_; c++) {
        const float2 of_pair = lane_pairs[t * E + c * 8];
#pragma unroll
        for (int j = 0; j < K; j++) {
          const float decay = ex2(of_pair.x * A[c][j]);
          s[c][j] = REVERSE ? decay * fmaf(of_pair.y, b[j], s[c][j]) : fmaf(decay, s[c][j], of_pair.y * b[j]);
        }
      }
    }
    // no step of the next tile exists after the last one, in the direction of the scan
    const int rows = REVERSE ? (t0 > begin ? TILE : 0) : end - t0 - TILE;
    store_pairs(pair, rows, in_next, with_next);
    slot_before = slot, slot = slot_after;
    char* swapped = with_now;
    with_now = with_next, with_next = swapped;
  }

  const i64 row = (((i64)at.b * p.chunks + at.chunk) * p.groups + at.g) * p.e + first;
#pragma unroll
  for (int c = 0; c < C_; c++)
#pragma unroll
    for (int i = 0; i < NB; i++)
      if (c * 8 + lane_channel < valid)
        *(float4*)(p.ends + (row + c * 8 + lane_channel) * N + 16 * i + 4 * quarter) =
            make_float4(s[c][4 * i], s[c][4 * i + 1], s[c][4 * i + 2], s[c][4 * i + 3]);
#pragma unroll
  for (int i = E; i < PAIR_LANES; i *= 2) sum += __shfl_xor_sync(ALL_LANES, sum, i);
  if (lane < min(E, valid)) p.sums[row + lane] = sum;
}
