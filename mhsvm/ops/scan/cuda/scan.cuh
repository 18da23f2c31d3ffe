// What the kernels of the selective scan share. They are compiled by NVRTC, one variant at a time.
//
// Letters: b batch, l steps, h heads, k routes of a head (they share its u), g = h * k groups, e channels of a group, n
// states. The last axis of every tensor is contiguous. Strides s_*l, of a step or cell, are in bytes; all others are in
// numbers.
//
// A warp scans E = 8 * CHANNELS channels of a group. A lane holds, of each of its CHANNELS channels, 4 states of every
// block of 16: those of its `quarter`. Its channels are lane_channel, lane_channel + 8, ... The bits of a lane's number
// are
//
//     c2 c1 q1 q0 c0        c: lane_channel, q: quarter
//
// so that lanes x and x ^ 1 read the same of B and C, and lanes x and x ^ 2 the same of a channel: then a 16-byte load
// from shared memory takes 2 cycles, otherwise 4, also where all lanes read one address.
//
// Time advances by tiles of TILE = 8 steps, staged in shared memory by asynchronous copies, STAGES - 1 tiles ahead. The
// phases of a tile:
//
//     stage       copy a later tile
//     prepare     every lane takes (step, channel) pairs and computes softplus, delta * u, ... once each
//     walk        every lane advances its states; B, C and the pairs are read as broadcasts
//     sum         over the 4 quarters of a channel and, backward, over the channels of a step
//
// In each phase all loads from shared memory come before its stores: the compiler moves no load across a store.
// No atomics; every sum has a fixed order.
//
// Set by -D: CHANNELS; WARPS of a block; STATE_BLOCKS of 16 states; ALL_STATES, 1 if n fills them; FULL, 1 if the
// channels of a block divide e; U X Y Z SAVED BC_GRAD U_GRAD, the types of u, of delta, B and C, of y, of z, of saved
// states, and of the gradients of B and C and of u; ALIGN_U ALIGN_DELTA ALIGN_BC ALIGN_Y ALIGN_Z, bytes by which rows
// are aligned; SOFTPLUS, ORDERED (cells by index), GATE (z is given), SAVE, REVERSE; STAGES; BUFFERS; MIN_BLOCKS of a
// multiprocessor.

#include "device.cuh"

constexpr int C_ = CHANNELS, E = 8 * C_, NB = STATE_BLOCKS, N = 16 * NB, K = 4 * NB, TILE = 8;
// Pairs (step, channel) of a tile: a lane below PAIR_LANES has PAIRS of them, of channel lane % E and of the steps
// lane / E + PAIR_STEPS * j; that is number lane + PAIR_LANES * j.
constexpr int PAIR_STEPS = 32 / E, PAIR_LANES = PAIR_STEPS * E, PAIRS = TILE / PAIR_STEPS;
constexpr float LOG2_E = 1.4426950408889634f, LN_2 = 0.6931471805599453f;

typedef float States[C_][K];

template <class T> struct alignas(4 * sizeof(T)) Four { T at[4]; };
template <class T> DEVICE float4 widen(const Four<T>& x) {
  return make_float4(widen(x.at[0]), widen(x.at[1]), widen(x.at[2]), widen(x.at[3]));
}
template <class T> DEVICE Four<T> narrow4(float a, float b, float c, float d) {
  return {narrow<T>(a), narrow<T>(b), narrow<T>(c), narrow<T>(d)};
}

// log(1 + e^x), accurate also where it is tiny; `exponential` is e^min(x, 20).
DEVICE float softplus(float x, float exponential) {
  const float e = exponential;
  const float series = e * (1.f - e * (0.5f - e * (0.33333334f - e * 0.25f)));
  const float small = e < 0.03f ? series : lg2(1.f + e) * LN_2;
  return x > 20.f ? x : small;
}
DEVICE float bounded_exponential(float x) { return ex2(fminf(x, 20.f) * LOG2_E); }
DEVICE float sigmoid(float x) { return rcp(1.f + ex2(-x * LOG2_E)); }

// The row of a step or cell.
template <class T> DEVICE T* row_of(T* p, int cell, int stride_bytes) {
  return (T*)((char*)p + wide_product(cell, stride_bytes));
}

// Which part of the scan a block computes.
struct Place { int part, g, chunk, b; };
DEVICE Place place_of(int parts, int groups, int chunks) {
  int i = blockIdx.x;
  Place at;
  at.part = i % parts; i /= parts;
  at.g = i % groups; i /= groups;
  at.chunk = i % chunks; at.b = i / chunks;
  return at;
}

DEVICE int cell_of(const i64* order, int step, int length) {
#if ORDERED
  return (int)order[step < length ? step : length - 1];
#else
  return step;
#endif
}

// Copy TILE rows of WIDTH numbers. If not WHOLE, `valid` columns and `rows` rows exist and the others become zero. The
// first row is of step `start`, or lanes 0 to 7 hold the cells of the rows.
template <bool WHOLE, int WIDTH, int ALIGN, class T>
DEVICE void stage_rows(char* to, const T* from, int stride_bytes, int start, int cell, int rows, int valid, int lane) {
  constexpr int PER = ALIGN / sizeof(T), IN_ROW = WIDTH / PER;
  // A lane copies the same columns of several rows, or if a row has more than 32 copies, those of one row after the
  // other.
  constexpr int ROWS = IN_ROW <= 32 ? 32 / IN_ROW : 1, LANES = IN_ROW <= 32 ? ROWS * IN_ROW : 32;
  const int lane_row = IN_ROW <= 32 ? lane / IN_ROW : 0, lane_column = IN_ROW <= 32 ? lane % IN_ROW : lane;
#pragma unroll
  for (int j = 0; j < (TILE + ROWS - 1) / ROWS; j++) {
    const int row = lane_row + ROWS * j;
#if ORDERED
    const int at = __shfl_sync(ALL_LANES, cell, row & 7);
#else
    const int at = start + row;
#endif
#pragma unroll
    for (int i = 0; i < IN_ROW; i += 32) {
      const int column = (lane_column + i) * PER;
      int given = ALIGN;
      if (!WHOLE) given = row < rows ? min(ALIGN, max(0, (valid - column) * (int)sizeof(T))) : 0;
      // in this order the sum in parentheses stays in registers, and a product of 64 bits adds the rest
      if ((LANES == 32 || lane < LANES) && (TILE % ROWS == 0 || row < TILE))
        copy_async<ALIGN>(to + (row * IN_ROW + lane_column + i) * ALIGN,
                          row_of(from + column, at, stride_bytes), given);
    }
  }
}
struct Whole { static constexpr bool value = true; };
struct Partial { static constexpr bool value = false; };

// The next of STAGES places in shared memory.
DEVICE int next_slot(int slot) { return slot == STAGES - 1 ? 0 : slot + 1; }

// Rows of B and C, next to each other in shared memory, as float32.
template <int NUM> DEVICE const float* widen_rows(float* to, const float* from, int) { return from; }
template <int NUM, class T> DEVICE const float* widen_rows(float* to, const T* from, int lane) {
  constexpr int PER = NUM / 32 < 8 ? NUM / 32 : 8;
  struct alignas(PER * sizeof(T)) Packed { T at[PER]; };
#pragma unroll
  for (int i = 0; i < NUM / 32 / PER; i++) {
    const Packed x = ((const Packed*)from)[lane + 32 * i];
#pragma unroll
    for (int j = 0; j < PER; j += 4)
      *(float4*)(to + (lane + 32 * i) * PER + j) =
          make_float4(widen(x.at[j]), widen(x.at[j + 1]), widen(x.at[j + 2]), widen(x.at[j + 3]));
  }
  return to;
}

// The lane's 4 * STATE_BLOCKS numbers of a row of B or C; `row` begins with the lane's first.
DEVICE void load_states(float (&x)[K], const float* row) {
#pragma unroll
  for (int i = 0; i < NB; i++) {
    const float4 four = *(const float4*)(row + 16 * i);
    x[4 * i] = four.x, x[4 * i + 1] = four.y, x[4 * i + 2] = four.z, x[4 * i + 3] = four.w;
  }
}

// Number of the lane's state i in a block of its channel.
DEVICE int state_of(int i, int quarter) { return i / 4 * 16 + 4 * quarter + i % 4; }

// A * log2(e) of the lane's states, (g, n, e) in memory; zero where there is no state or channel.
DEVICE void load_A(States& A, const float* from, int g, int e, int n, int first, int valid, int lane_channel,
                   int quarter) {
#pragma unroll
  for (int c = 0; c < C_; c++)
#pragma unroll
    for (int i = 0; i < K; i++) {
      const int channel = c * 8 + lane_channel, state = state_of(i, quarter);
      A[c][i] = channel < valid && state < n ? from[(i64)(g * n + state) * e + first + channel] * LOG2_E : 0.f;
    }
}

// Advance the state that enters a chunk across another chunk: ends (b, chunks, g, e, N) and sums of delta (b, chunks,
// g, e).
DEVICE void cross_chunk(States& s, const States& A, const float* ends, const float* sums, i64 row, int first, int valid,
                        int lane_channel, int quarter) {
#pragma unroll
  for (int c = 0; c < C_; c++) {
    const int channel = c * 8 + lane_channel;
    const i64 at = row + first + (channel < valid ? channel : 0);
    const float sum = sums[at];
    float end[K];
    load_states(end, ends + at * N + 4 * quarter);
#pragma unroll
    for (int i = 0; i < K; i++)
      s[c][i] = channel < valid ? fmaf(ex2(A[c][i] * sum), s[c][i], end[i]) : 0.f;
  }
}
