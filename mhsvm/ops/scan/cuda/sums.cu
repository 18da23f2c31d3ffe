// Sums that the backward pass leaves, in a fixed order: over the rows of the parameters' gradients, and over the parts
// of the gradients of B and C.
#include "device.cuh"

struct Rows { const float* from; float* to; i64 row; int rows, columns; };

// A block sums 32 columns; a thread every eighth row, four at a time.
extern "C" __global__ void __launch_bounds__(256) scan_sum_rows(const __grid_constant__ Rows p) {
  extern __shared__ __align__(128) char shared[];
  float* sums = (float*)shared;  // 8 x 32
  const int column = blockIdx.x * 32 + threadIdx.x % 32, slot = threadIdx.x / 32;
  float sum[4] = {};
  if (column < p.columns) {
    const float* from = p.from + column;
    int row = slot;
    for (; row + 24 < p.rows; row += 32)
#pragma unroll
      for (int j = 0; j < 4; j++) sum[j] += from[(row + 8 * j) * p.row];
    for (; row < p.rows; row += 8) sum[0] += from[row * p.row];
  }
  sums[threadIdx.x] = (sum[0] + sum[1]) + (sum[2] + sum[3]);
  __syncthreads();
  if (slot == 0 && column < p.columns) {
    float total = 0.f;
#pragma unroll
    for (int j = 0; j < 8; j++) total += sums[j * 32 + threadIdx.x];
    p.to[column] = total;
  }
}

// Parts of two gradients (2, parts, b, l, h, k, n), and the gradients, of any strides.
struct Parts {
  const BC_GRAD* from; X* dB; X* dC;
  i64 size, s_Bb, s_Bl, s_Bh, s_Bk, s_Cb, s_Cl, s_Ch, s_Ck;
  int parts, length, heads, routes, n;
};

extern "C" __global__ void __launch_bounds__(256) scan_sum_parts(const __grid_constant__ Parts p) {
  constexpr int PER = VECTOR_BC ? 4 : 1;
  struct alignas(PER * sizeof(BC_GRAD)) Packed { BC_GRAD at[PER]; };
  struct alignas(PER * sizeof(X)) PackedX { X at[PER]; };
  const i64 at = ((i64)blockIdx.x * 256 + threadIdx.x) * PER;
  if (at >= 2 * p.size) return;
  const bool of_C = at >= p.size;
  const i64 i = of_C ? at - p.size : at;
  const BC_GRAD* from = p.from + i + (of_C ? p.parts * p.size : 0);
  float sum[PER] = {};
#pragma unroll 4
  for (int part = 0; part < p.parts; part++) {
    const Packed x = *(const Packed*)(from + part * p.size);
#pragma unroll
    for (int v = 0; v < PER; v++) sum[v] += widen(x.at[v]);
  }
  const int row = (int)(i / p.n), state = (int)(i % p.n), k = row % p.routes, h = row / p.routes % p.heads;
  const int cell = row / p.routes / p.heads, t = cell % p.length, b = cell / p.length;
  X* to = of_C ? p.dC + b * p.s_Cb + t * p.s_Cl + h * p.s_Ch + k * p.s_Ck
               : p.dB + b * p.s_Bb + t * p.s_Bl + h * p.s_Bh + k * p.s_Bk;
  PackedX out;
#pragma unroll
  for (int v = 0; v < PER; v++) out.at[v] = narrow<X>(sum[v]);
  *(PackedX*)(to + state) = out;
}
