// Runs a kernel on a CPU, one block after the other: each thread is a fiber that runs until the next barrier or shuffle of
// its warp. In place of device.cuh, before the source; entry() after it. Asynchronous copies happen as late as they may, or
// at once; lanes run in rising or falling order: a missing barrier changes the result.
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

using std::max;
using std::min;

#define DEVICE inline
#define __device__
#define __forceinline__ inline
#define __global__
#define __shared__
#define __align__(n)
#define __grid_constant__
#define __launch_bounds__(...)

typedef unsigned int u32;
typedef unsigned short u16;
typedef long long i64;
struct bf16 { u16 bits; };
struct f16 { u16 bits; };
struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
constexpr u32 ALL_LANES = 0xffffffffu;

inline void check(bool ok, const char* text) {
  if (!ok) std::fprintf(stderr, "emulator: %s\n", text), std::abort();
}
template <class To, class From> To bits_of(From x) { To r; std::memcpy(&r, &x, sizeof r); return r; }

inline float widen(float x) { return x; }
inline float widen(bf16 x) { return bits_of<float>((u32)x.bits << 16); }
inline float widen(f16 x) { return (float)bits_of<_Float16>(x.bits); }
template <class T> T narrow(float x);
template <> inline float narrow<float>(float x) { return x; }
template <> inline f16 narrow<f16>(float x) { return {bits_of<u16>((_Float16)x)}; }
template <> inline bf16 narrow<bf16>(float x) {
  const u32 b = bits_of<u32>(x);
  return {(u16)(x != x ? 0x7fc0 : (b + 0x7fff + (b >> 16 & 1)) >> 16)};
}
inline float ex2(float x) { return std::exp2(x); }
inline float lg2(float x) { return std::log2(x); }
inline float rcp(float x) { return 1.f / x; }
inline void store_streaming(float4* to, float4 x) { *to = x; }
inline void keep_branch() {}
inline i64 wide_product(int x, int y) { return (i64)x * y; }

struct { int x; } threadIdx, blockIdx;
constexpr int SHARED = 1 << 18, STACK = 1 << 17;
alignas(128) char shared[SHARED];

struct Copy { void* to; const void* from; int bytes, given; };
struct Fiber {
  ucontext_t context;
  std::vector<char> stack;
  std::vector<std::vector<Copy>> groups;  // the last one is open
  int waits;                              // 0 done, 1 for its warp, 2 for the block
  u32 value;
};
static std::vector<Fiber> fibers;
static ucontext_t scheduler;
static Fiber* current;
static bool late = true;

inline void run(const Copy& c) {
  std::memcpy(c.to, c.from, c.given);
  std::memset((char*)c.to + c.given, 0, c.bytes - c.given);
}
template <int BYTES> void copy_async(void* to, const void* from, int given) {
  check(given >= 0 && given <= BYTES, "bytes of a copy");
  check((uintptr_t)to % BYTES == 0 && (!given || (uintptr_t)from % BYTES == 0), "a copy is not aligned");
  check((char*)to >= shared && (char*)to + BYTES <= shared + SHARED, "a copy goes outside of shared memory");
  const Copy c{to, from, BYTES, given};
  if (late && BYTES > 2) current->groups.back().push_back(c);
  else run(c);
}
inline void commit_copies() { current->groups.emplace_back(); }
template <int PENDING> void wait_copies() {
  auto& groups = current->groups;
  const int done = (int)groups.size() - 1 - PENDING;
  for (int i = 0; i < done; i++)
    for (const Copy& c : groups[i]) run(c);
  if (done > 0) groups.erase(groups.begin(), groups.begin() + done);
}
inline void pause(int waits) {
  current->waits = waits;
  swapcontext(&current->context, &scheduler);
}
inline void __syncwarp() { pause(1); }
inline void __syncthreads() { pause(2); }
template <class T> T exchange(T x, int from) {
  const int warp = threadIdx.x / 32 * 32;
  current->value = bits_of<u32>(x);
  pause(1);
  const T r = bits_of<T>(fibers[warp + from].value);
  pause(1);
  return r;
}
template <class T> T __shfl_sync(u32, T x, int from) { return exchange(x, from); }
template <class T> T __shfl_xor_sync(u32, T x, int mask) { return exchange(x, threadIdx.x % 32 ^ mask); }

static void (*body)();
static void trampoline() {
  body();
  current->waits = 0;
  swapcontext(&current->context, &scheduler);
}
static void resume(int i) {
  current = &fibers[i];
  threadIdx.x = i;
  swapcontext(&scheduler, &current->context);
}

// Run a warp to its next barrier of the block or its end; every lane has to arrive at the same one.
static void run_warp(int first, bool falling) {
  do {
    for (int i = 0; i < 32; i++) resume(first + (falling ? 31 - i : i));
    for (int i = 1; i < 32; i++) check(fibers[first + i].waits == fibers[first].waits, "the lanes of a warp part");
  } while (fibers[first].waits == 1);
}

inline void run_blocks(void (*kernel)(), int blocks, int threads, int shared_bytes, bool copies_late, bool falling) {
  body = kernel;
  late = copies_late;
  fibers.resize(threads);
  for (auto& fiber : fibers) fiber.stack.resize(STACK);
  for (blockIdx.x = 0; blockIdx.x < blocks; blockIdx.x++) {
    std::memset(shared, 0xff, SHARED);
    for (auto& fiber : fibers) {
      getcontext(&fiber.context);
      fiber.context.uc_stack.ss_sp = fiber.stack.data();
      fiber.context.uc_stack.ss_size = STACK;
      makecontext(&fiber.context, trampoline, 0);
      fiber.groups.assign(1, {});
      fiber.waits = 1;
    }
    bool done = false;
    while (!done) {
      done = true;
      for (int i = 0; i < threads; i += 32) {
        const int warp = falling ? threads - 32 - i : i;
        if (fibers[warp].waits) run_warp(warp, falling);
        done = done && !fibers[warp].waits;
      }
    }
    for (int i = shared_bytes; i < SHARED; i++) check(shared[i] == (char)0xff, "more shared memory than the block has");
  }
}
