// Number types, fast functions and asynchronous copies. All inline PTX is in this file; it needs sm_80 and no header.

typedef unsigned int u32;
typedef unsigned short u16;
typedef long long i64;
struct bf16 { u16 bits; };
struct f16 { u16 bits; };

#define DEVICE __device__ __forceinline__

constexpr u32 ALL_LANES = 0xffffffffu;

DEVICE float widen(float x) { return x; }
DEVICE float widen(bf16 x) { return __uint_as_float((u32)x.bits << 16); }
DEVICE float widen(f16 x) { float r; asm("cvt.f32.f16 %0, %1;" : "=f"(r) : "h"(x.bits)); return r; }

template <class T> DEVICE T narrow(float x);
template <> DEVICE float narrow<float>(float x) { return x; }
template <> DEVICE bf16 narrow<bf16>(float x) {
  bf16 r;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(r.bits) : "f"(x));
  return r;
}
template <> DEVICE f16 narrow<f16>(float x) { f16 r; asm("cvt.rn.f16.f32 %0, %1;" : "=h"(r.bits) : "f"(x)); return r; }

DEVICE float ex2(float x) { float r; asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x)); return r; }
DEVICE float lg2(float x) { float r; asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x)); return r; }
DEVICE float rcp(float x) { float r; asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x)); return r; }

// Store that the caches evict first: for what only the backward pass reads.
DEVICE void store_streaming(float4* to, float4 x) {
  asm volatile("st.global.cs.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(to), "f"(x.x), "f"(x.y), "f"(x.z), "f"(x.w));
}

// Copy BYTES to shared memory, of which `given` are read and the rest is zero. Of 2 bytes there is no asynchronous
// copy.
template <int BYTES> DEVICE void copy_async(void* to, const void* from, int given) {
  const u32 address = (u32)__cvta_generic_to_shared(to);
  if (BYTES == 16)
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(from), "r"(given));
  else if (BYTES == 8)
    asm volatile("cp.async.ca.shared.global [%0], [%1], 8, %2;" ::"r"(address), "l"(from), "r"(given));
  else if (BYTES == 4)
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(address), "l"(from), "r"(given));
  else
    *(u16*)to = given ? *(const u16*)from : (u16)0;
}
DEVICE void commit_copies() { asm volatile("cp.async.commit_group;"); }
// Wait until at most PENDING groups of this thread's copies are under way.
template <int PENDING> DEVICE void wait_copies() { asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory"); }

// Keep the branch around it, which the compiler would replace by selects.
DEVICE void keep_branch() { asm volatile(""); }

// A product that ptxas joins with the sum that follows it; from C++ it takes several instructions.
DEVICE i64 wide_product(int x, int y) { i64 r; asm("mul.wide.s32 %0, %1, %2;" : "=l"(r) : "r"(x), "r"(y)); return r; }
