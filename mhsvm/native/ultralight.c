/* UltraLight VM-UNet in C; see ultralight.h.

   Maps are channels-last, (h, w, c), with channels padded to multiples of PAD by zeros. Letters: h w the map in pixels,
   l = h w its cells, c o channels in and out, p branches, v = c / p, d = expand v channels of a mixer, n its states,
   r the rank of delta. Vectors have LANES floats: vector extensions of GCC and Clang, for SSE2, AVX2, NEON and wasm.
   Compile without -ffast-math: the exponential rounds by adding and subtracting a large number. */
#include "ultralight.h"

#ifdef __AVX2__
#define LANES 8
#else
#define LANES 4
#endif
#define PAD 8 /* of weights, whatever LANES is */
#define GROUPS 4
#define LEVELS 5 /* skip connections */

typedef float vec __attribute__((vector_size(4 * LANES)));
typedef float unaligned __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t ints __attribute__((vector_size(4 * LANES)));

#define INLINE static inline __attribute__((always_inline))
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

INLINE vec load(const float *p) { return *(const unaligned *)p; }
INLINE void store(float *p, vec x) { *(unaligned *)p = x; }
INLINE vec splat(float x) { return x - (vec){0}; }
INLINE vec choose(ints mask, vec yes, vec no) { return (vec)(((ints)yes & mask) | ((ints)no & ~mask)); }
/* a > b ? a : b, and its opposite: b where one of them is NaN. Compilers do not find these instructions by themselves. */
#if defined(__AVX2__)
INLINE vec greater(vec a, vec b) { return __builtin_ia32_maxps256(a, b); }
INLINE vec smaller(vec a, vec b) { return __builtin_ia32_minps256(a, b); }
#elif defined(__SSE2__)
INLINE vec greater(vec a, vec b) { return __builtin_ia32_maxps(a, b); }
INLINE vec smaller(vec a, vec b) { return __builtin_ia32_minps(a, b); }
#else
INLINE vec greater(vec a, vec b) { return choose(a > b, a, b); }
INLINE vec smaller(vec a, vec b) { return choose(a < b, a, b); }
#endif
INLINE int padded(int n) { return (n + PAD - 1) / PAD * PAD; }
/* NaN stays NaN */
INLINE vec clamp(vec x, float low, float high) { return smaller(splat(high), greater(splat(low), x)); }

INLINE float sum_lanes(vec x) {
#if LANES == 8
  return ((x[0] + x[4]) + (x[1] + x[5])) + ((x[2] + x[6]) + (x[3] + x[7]));
#else
  return (x[0] + x[1]) + (x[2] + x[3]);
#endif
}

INLINE float greatest_lane(vec x) {
  float most = x[0];
  UNROLL for (int i = 1; i < LANES; i++) most = x[i] > most ? x[i] : most;
  return most;
}

#define MAGIC 12582912.f /* 1.5 2^23: adding it rounds to an integer */

/* Polynomials are sums of pairs of terms: one term after the other takes longer. */

/* exp(x) = 2^k exp(r) with |r| <= log(2) / 2; the polynomial is that of Cephes, 2 units in the last place */
INLINE vec vexp(vec x) {
  x = clamp(x, -87.33f, 88.3f);
  const vec magic = splat(MAGIC);
  vec k = x * 1.44269504f + magic;
  ints n = (ints)k - (ints)magic;
  k -= magic;
  vec r = x - k * 0.693359375f + k * 2.12194440e-4f;
  const vec q = r * r;
  const vec p = ((r * 1.9875691500e-4f + 1.3981999507e-3f) * q + (r * 8.3334519073e-3f + 4.1665795894e-2f)) * q +
                (r * 1.6666665459e-1f + 5.0000001201e-1f);
  return (p * q + (r + 1.f)) * (vec)((n + 127) << 23);
}

INLINE vec vsigmoid(vec x) { return 1.f / (1.f + vexp(-x)); }
INLINE vec vsilu(vec x) { return x / (1.f + vexp(-x)); }

/* max(x, 0) + log(1 + t) with t = exp(-|x|); log(1 + t) = 2 artanh(t / (2 + t)) as a series */
INLINE vec vsoftplus(vec x) {
  vec t = vexp(-(vec)((ints)x & 0x7fffffff)), s = t / (2.f + t), q = s * s;
  const vec q2 = q * q;
  const vec p = (((q * (1.f / 15) + 1.f / 13) * q + 1.f / 11) * q2 + (q * (1.f / 9) + 1.f / 7)) * q2 + (q * (1.f / 5) + 1.f / 3);
  return greater(splat(0), x) + 2.f * (s + s * q * p);
}

/* x/2 (1 + erf(x / sqrt 2)), with the rational approximation of erf on |z| < 3.83 of Eigen */
INLINE vec vgelu(vec x) {
  vec z = clamp(x * 0.70710678f, -3.8325069f, 3.8325069f), q = z * z;
  const vec q2 = q * q;
  const vec a = (((q * -2.72614225801306e-10f + 2.77068142495902e-08f) * q + -2.10102402082508e-06f) * q2 +
                 (q * -5.69250639462346e-05f + -7.34990630326855e-04f)) * q2 +
                (q * -2.95459980854025e-03f + -1.60960333262415e-02f);
  const vec b = (q2 * -1.45660718464996e-05f + (q * -2.13374055278905e-04f + -1.68282697438203e-03f)) * q2 +
                (q * -7.37332916720468e-03f + -1.42647390514189e-02f);
  return x * 0.5f * (1.f + a * z / b);
}

#if defined(__wasm__)
void *memset(void *to, int value, size_t num) {
  unsigned char *p = to;
  while (num--) *p++ = (unsigned char)value;
  return to;
}
void *memcpy(void *to, const void *from, size_t num) {
  unsigned char *p = to;
  const unsigned char *q = from;
  while (num--) *p++ = *q++;
  return to;
}
#endif

/* 1 / sqrt(x) without a library: a guess from the exponent, then Newton's method */
static float inverse_root(float x) {
  union {
    float value;
    int32_t bits;
  } guess = {x};
  guess.bits = 0x5f3759df - (guess.bits >> 1);
  double y = guess.value;
  for (int i = 0; i < 4; i++) y *= 1.5 - 0.5 * (double)x * y * y;
  return (float)y;
}

static void zero(float *x, size_t num) {
  for (size_t i = 0; i < num; i++) x[i] = 0;
}

/* Weights are read once, from first to last. */
typedef struct {
  const float *at;
} cursor;

INLINE const float *take(cursor *w, int num) {
  const float *p = w->at;
  w->at += num;
  return p;
}

/* ---- products ---- */

/* For each vector of a tile. */
#define EACH(j) UNROLL for (int j = 0; j < COLUMNS; j++)

/* ROWS rows of a product, COLUMNS vectors of each. */
INLINE void product_tile(const float *x, int ldx, float *y, int ldy, const float *kernel, int ldk, const float *bias, int k,
                         const int ROWS, const int COLUMNS) {
  vec sums[8][4];
  UNROLL for (int i = 0; i < ROWS; i++)
    EACH(j) sums[i][j] = bias ? load(bias + j * LANES) : splat(0);
  for (int t = 0; t < k; t++, kernel += ldk) {
    vec column[4];
    EACH(j) column[j] = load(kernel + j * LANES);
    UNROLL for (int i = 0; i < ROWS; i++)
      EACH(j) sums[i][j] += x[(size_t)i * ldx + t] * column[j];
  }
  UNROLL for (int i = 0; i < ROWS; i++)
    EACH(j) store(y + (size_t)i * ldy + j * LANES, sums[i][j]);
}

/* y (n, m) = x (n, k) kernel (k, m) + bias; m is a multiple of PAD, rows are ldx and ldy apart. The tiles are the fastest
   for 16 registers, of which SSE2 needs one more for each row. */
static void linear(const float *x, int ldx, float *y, int ldy, int n, int k, int m, const float *kernel,
                   const float *bias) {
  for (int o = 0; o < m;) {
    const int left = (m - o) / LANES; /* even with 4 lanes */
    const int columns = left == 1 || left == 2 ? left : LANES == 4 ? 4 : left == 4 ? 2 : 3;
    const int most = columns == 1 ? 8 : columns == 2 ? 6 : LANES == 4 ? 2 : 4, rows = n < most ? 1 : most;
    for (int i = 0; i < n; i += rows) {
      /* the last tile begins earlier, and computes some rows again */
      const int first = i + rows <= n ? i : n - rows;
      for (int j = 0; j < columns; j += rows == 1 ? 1 : columns) {
        const int at = o + j * LANES;
        const float *from = x + (size_t)first * ldx, *factor = kernel + at, *start = bias ? bias + at : 0;
        float *to = y + (size_t)first * ldy + at;
        if (rows == 1) product_tile(from, ldx, to, ldy, factor, m, start, k, 1, 1);
        else if (columns == 1) product_tile(from, ldx, to, ldy, factor, m, start, k, 8, 1);
        else if (columns == 2) product_tile(from, ldx, to, ldy, factor, m, start, k, 6, 2);
        else if (LANES == 4) product_tile(from, ldx, to, ldy, factor, m, start, k, 2, 4);
        else product_tile(from, ldx, to, ldy, factor, m, start, k, 4, 3);
      }
    }
    o += columns * LANES;
  }
}

/* ---- norms ---- */

/* Sums over the cells of a map so far, per channel. Short sums are of differences to `near`, the mean before them: then
   those of squares lose no digits where the mean is large. */
typedef struct {
  double num, sum[ULTRALIGHT_MAX_CHANNELS], squares[ULTRALIGHT_MAX_CHANNELS];
  float near[ULTRALIGHT_MAX_CHANNELS];
} moments;

static void start_moments(moments *m, int c) {
  m->num = 0;
  for (int j = 0; j < c; j++) m->sum[j] = m->squares[j] = 0;
}

static void add_moments(moments *m, const float *x, int cells, int c) {
  for (int num; cells; cells -= num, x += num * c) {
    num = cells < 128 ? cells : 128;
    const double inverse = 1 / (m->num + num);
    for (int j = 0; j < c; j += LANES) {
      vec sums[2] = {splat(0), splat(0)}, squares[2] = {splat(0), splat(0)}, near = splat(0);
      if (m->num) near = load(m->near + j);
      else { /* not the first cell: it can be far from all others */
        for (int i = 0; i < num; i++) near += load(x + i * c + j);
        near /= splat((float)num);
      }
      int i = 0;
      for (; i + 2 <= num; i += 2)
        UNROLL for (int q = 0; q < 2; q++) {
          const vec value = load(x + (i + q) * c + j) - near;
          sums[q] += value;
          squares[q] += value * value;
        }
      if (i < num) {
        const vec value = load(x + i * c + j) - near;
        sums[0] += value;
        squares[0] += value * value;
      }
      sums[0] += sums[1];
      squares[0] += squares[1];
      for (int q = 0; q < LANES; q++) {
        const double by = near[q], sum = sums[0][q];
        m->sum[j + q] += sum + num * by;
        m->squares[j + q] += squares[0][q] + by * (2 * sum + num * by);
        m->near[j + q] = (float)(m->sum[j + q] * inverse);
      }
    }
    m->num += num;
  }
}

/* GroupNorm as y = x scale + shift; `real` channels are no padding. */
static void group_norm(const moments *m, int c, int real, const float *weight, const float *bias, float *scale,
                       float *shift) {
  const int width = real / GROUPS;
  for (int j = real; j < c; j++) scale[j] = shift[j] = 0;
  for (int g = 0; g < GROUPS; g++) {
    double sum = 0, squares = 0;
    for (int j = g * width; j < (g + 1) * width; j++) {
      sum += m->sum[j];
      squares += m->squares[j];
    }
    const double mean = sum / (m->num * width), variance = squares / (m->num * width) - mean * mean;
    const float inverse = inverse_root((float)(variance < 0 ? 0 : variance) + 1e-5f);
    for (int j = g * width; j < (g + 1) * width; j++) {
      scale[j] = inverse * weight[j];
      shift[j] = (float)(bias[j] - mean * scale[j]);
    }
  }
}

/* x (l, c) = GELU(x scale + shift) + skip; scale and skip can be 0. */
static void gelu(float *x, int l, int c, const float *scale, const float *shift, const float *skip) {
  for (size_t i = 0; i < (size_t)l * c; i += c)
    for (int j = 0; j < c; j += LANES) {
      const vec y = vgelu(scale ? load(x + i + j) * load(scale + j) + load(shift + j) : load(x + i + j));
      store(x + i + j, skip ? y + load(skip + i + j) : y);
    }
}

/* y (w/2, c) = the maximum of each 2 x 2 square of x (2, w, c), or the minimum in channels of a negative weight: the
   greatest after a norm with this weight. */
static void halve(const float *x, float *y, int w, int c, const float *weight) {
  for (int j = 0; j < w; j += 2, x += 2 * c, y += c)
    for (int k = 0; k < c; k += LANES) {
      const float *p = x + k, *q = p + (size_t)w * c;
      const vec a = load(p), b = load(p + c), e = load(q), f = load(q + c);
      const vec most = greater(greater(a, b), greater(e, f)), least = smaller(smaller(a, b), smaller(e, f));
      store(y + k, choose(load(weight + k) < splat(0), least, most));
    }
}

/* ---- convolutions ---- */

/* Where a convolution leaves rows: `map` (h, w, c) in full, or `halved` with `pair` (2, w, c) as memory. */
typedef struct {
  float *map, *pair, *halved;
  const float *weight;
  moments *moments;
} outputs;

INLINE float *rows_at(const outputs *to, int i, int w, int c) { return to->map ? to->map + (size_t)i * w * c : to->pair; }

/* Rows i and i + 1 are there. */
static void finish_rows(const outputs *to, int i, int w, int c) {
  const float *rows = rows_at(to, i, w, c);
  add_moments(to->moments, rows, 2 * w, c);
  if (!to->map) halve(rows, to->halved + (size_t)(i / 2) * (w / 2) * c, w, c, to->weight);
}

/* PIXELS neighboring outputs of a 3 x 3 convolution, COLUMNS vectors of channels. */
INLINE void conv_tile(const float *const *x, int first, int c, float *y, int o, const float *kernel, const float *bias,
                      const int PIXELS, const int COLUMNS) {
  vec sums[8][3];
  UNROLL for (int q = 0; q < PIXELS; q++)
    EACH(j) sums[q][j] = load(bias + j * LANES);
  for (int row = 0; row < 3; row++) {
    const float *from = x[row] + first * c;
    for (int t = 0; t < 3 * c; t++, kernel += o) {
      vec column[3];
      EACH(j) column[j] = load(kernel + j * LANES);
      UNROLL for (int q = 0; q < PIXELS; q++)
        EACH(j) sums[q][j] += from[q * c + t] * column[j];
    }
  }
  UNROLL for (int q = 0; q < PIXELS; q++)
    EACH(j) store(y + q * o + j * LANES, sums[q][j]);
}

/* 3 x 3 convolution with a border of zeros: x (h, w, c); h is even, w at least 8. ring (4, w + 2, c): the last rows of x
   with their border. */
static void conv(const float *x, const outputs *to, int h, int w, int c, int o, float *ring, const float *kernel,
                 const float *bias) {
  const int ld = (w + 2) * c;
  zero(ring, 4 * ld);
  for (int i = -1; i < h; i++) {
    float *next = ring + ((i + 1) & 3) * ld + c;
    if (i + 1 == h) zero(next, w * c);
    else
      for (int j = 0; j < w * c; j++) next[j] = x[(size_t)(i + 1) * w * c + j];
    if (i < 0) continue;
    const float *const rows[3] = {ring + ((i - 1) & 3) * ld, ring + (i & 3) * ld, next - c};
    for (int at = 0; at < o;) {
      const int left = (o - at) / LANES, columns = left == 1 || left == 3 ? left : 2;
      const int pixels = columns == 1 ? 8 : columns == 2 ? 6 : 4;
      for (int j = 0; j < w; j += pixels) {
        /* the last tile begins earlier, and computes some outputs again */
        const int first = j + pixels <= w ? j : w - pixels;
        float *y = rows_at(to, i & ~1, w, o) + ((i & 1) * w + first) * o + at;
        if (columns == 1) conv_tile(rows, first, c, y, o, kernel + at, bias + at, 8, 1);
        else if (columns == 2) conv_tile(rows, first, c, y, o, kernel + at, bias + at, 6, 2);
        else conv_tile(rows, first, c, y, o, kernel + at, bias + at, 4, 3);
      }
      at += columns * LANES;
    }
    if (i & 1) finish_rows(to, i - 1, w, o);
  }
}

enum { TILES = 24 };

/* Scratch of the convolution below, in floats. */
static size_t winograd_scratch(int w, int c, int o) {
  return 16 * ((size_t)c * o + TILES * (c + o)) + (size_t)5 * (w + 2) * c;
}

/* Values of a row or column of 4 for F(2, 3), `apart` floats from one to the next. */
INLINE void spread(vec a, vec b, vec c, vec d, float *y, size_t apart) {
  store(y, a - c);
  store(y + apart, b + c);
  store(y + 2 * apart, c - b);
  store(y + 3 * apart, b - d);
}

/* The kernel of F(2, 3) from three taps, `apart` floats from one to the next. */
INLINE void spread_kernel(const float *x, size_t from, float *y, size_t apart) {
  const vec a = load(x), b = load(x + from), c = load(x + 2 * from), half = .5f * (a + c);
  store(y, a);
  store(y + apart, half + .5f * b);
  store(y + 2 * apart, half - .5f * b);
  store(y + 3 * apart, c);
}

/* 3 x 3 convolution with a border of zeros by F(2 x 2, 3 x 3) of Lavin & Gray (arXiv 1509.09308), 16 products instead of
   36 for 4 outputs. x (h, w, c); h and w are even, c and o multiples of PAD. */
static void winograd(const float *x, const outputs *to, int h, int w, int c, int o, float *scratch, const float *kernel,
                     const float *bias) {
  const int ld = (w + 2) * c, size = c * o, ldx = w * c;
  float *kernels = scratch, *spreads = kernels + (size_t)16 * size, *products = spreads + 16 * TILES * c;
  float *columns = products + 16 * TILES * o, *zeros = columns + 4 * ld;
  for (int j = 0; j < size; j += LANES) {
    float rows[12 * LANES];
    for (int q = 0; q < 3; q++) spread_kernel(kernel + q * size + j, (size_t)3 * size, rows + q * LANES, 3 * LANES);
    for (int q = 0; q < 4; q++) spread_kernel(rows + 3 * q * LANES, LANES, kernels + (size_t)4 * q * size + j, size);
  }
  zero(zeros, ldx);
  zero(columns, 4 * ld);
  for (int i = 0; i < h; i += 2) {
    float *rows = rows_at(to, i, w, o);
    const float *row = x + (size_t)i * ldx, *above = i ? row - ldx : zeros, *below = i + 2 < h ? row + 2 * ldx : zeros;
    for (int j = 0; j < ldx; j += LANES)
      spread(load(above + j), load(row + j), load(row + ldx + j), load(below + j), columns + c + j, ld);
    for (int first = 0; first < w / 2; first += TILES) {
      const int tiles = w / 2 - first < TILES ? w / 2 - first : TILES;
      for (int q = 0; q < 4; q++)
        for (int t = 0; t < tiles; t++)
          for (int j = 0; j < c; j += LANES) {
            const float *from = columns + q * ld + 2 * (first + t) * c + j;
            spread(load(from), load(from + c), load(from + 2 * c), load(from + 3 * c),
                   spreads + (4 * q * TILES + t) * c + j, TILES * c);
          }
      for (int q = 0; q < 16; q++)
        linear(spreads + q * TILES * c, c, products + q * TILES * o, o, tiles, c, o, kernels + (size_t)q * size, 0);
      for (int t = 0; t < tiles; t++)
        for (int j = 0; j < o; j += LANES) {
          const float *from = products + t * o + j;
          float *y = rows + 2 * (first + t) * o + j;
          vec half[2][4];
          UNROLL for (int q = 0; q < 4; q++) {
            vec each[4];
            UNROLL for (int k = 0; k < 4; k++) each[k] = load(from + (4 * k + q) * TILES * o);
            half[0][q] = each[0] + each[1] + each[2];
            half[1][q] = each[1] - each[2] - each[3];
          }
          UNROLL for (int q = 0; q < 2; q++) {
            store(y + q * w * o, load(bias + j) + (half[q][0] + half[q][1] + half[q][2]));
            store(y + q * w * o + o, load(bias + j) + (half[q][1] - half[q][2] - half[q][3]));
          }
        }
    }
    finish_rows(to, i, w, o);
  }
}

/* ---- the bilinear doubling ---- */

/* Corners are on corners: outputs 2 m - 1 and 2 m of twice `num` places are between m - 1 and m. The weight of the second,
   as a fraction: i (num - 1) / (2 num - 1) - (m - 1) loses digits. */
INLINE float second_weight(int i, int num) {
  const int m = (i + 1) / 2;
  return (float)(i % 2 ? num - m : 2 * num - 1 - m) * (1.f / (float)(2 * num - 1));
}

/* row (n) = row i of (2h, n), between two rows of x (h, n) */
static void row_between(const float *x, int h, int n, int i, float *row) {
  const int m = (i + 1) / 2;
  const float weight = second_weight(i, h);
  const float *up = x + (size_t)(m ? m - 1 : 0) * n, *down = x + (size_t)(m < h ? m : h - 1) * n;
  for (int j = 0; j < n; j += LANES) store(row + j, (1 - weight) * load(up + j) + weight * load(down + j));
}

/* y (2h, 2w, c) = GELU(bilinear x (h, w, c) scale + shift) + skip; row: (w, c) */
static void double_map(const float *x, float *y, int h, int w, int c, const float *scale, const float *shift,
                       const float *skip, float *row) {
  for (int i = 0; i < 2 * h; i++) {
    row_between(x, h, w * c, i, row);
    for (int j = 0; j < 2 * w; j++, y += c, skip += c) {
      const int m = (j + 1) / 2;
      const float *a = row + (m ? m - 1 : 0) * c, *b = row + (m < w ? m : w - 1) * c;
      const float weight = second_weight(j, w);
      for (int k = 0; k < c; k += LANES) {
        const vec value = (1 - weight) * load(a + k) + weight * load(b + k);
        store(y + k, vgelu(value * load(scale + k) + load(shift + k)) + load(skip + k));
      }
    }
  }
}

/* y (2h, 2w) = x (h, w), bilinear; row: (w) */
static void double_logits(const float *x, float *y, int h, int w, float *row) {
  for (int i = 0; i < 2 * h; i++, y += 2 * w) {
    row_between(x, h, w, i, row);
    y[0] = row[0];
    y[2 * w - 1] = row[w - 1];
    for (int m = 1; m < w; m++)
      for (int j = 2 * m - 1; j <= 2 * m; j++) {
        const float weight = second_weight(j, w);
        y[j] = (1 - weight) * row[m - 1] + weight * row[m];
      }
  }
}

/* y (l, c) = LayerNorm of x (l, ldx); rows are written in order, up to PAD - 1 floats beyond their end. */
static void layer_norm(const float *x, int ldx, float *y, int l, int c, const float *weight, const float *bias) {
  for (int i = 0; i < l; i++, x += ldx, y += c) {
    vec sum = splat(0), squares = splat(0);
    int j = 0;
    for (; j + LANES <= c; j += LANES) sum += load(x + j);
    float mean = sum_lanes(sum);
    for (int k = j; k < c; k++) mean += x[k];
    mean /= c;
    for (j = 0; j + LANES <= c; j += LANES) {
      const vec value = load(x + j) - mean;
      squares += value * value;
    }
    float variance = sum_lanes(squares);
    for (int k = j; k < c; k++) variance += (x[k] - mean) * (x[k] - mean);
    const float inverse = inverse_root(variance / c + 1e-5f);
    for (j = 0; j < c; j += LANES) store(y + j, (load(x + j) - mean) * inverse * load(weight + j) + load(bias + j));
  }
}

/* ---- the parallel Mamba layer ---- */

typedef struct {
  int v, d, n, rank, taps; /* of a branch */
  int inner;               /* 2 d, padded */
  int projected;           /* B, C and delta, padded */
  int out;                 /* v, padded */
} mixer;

static mixer mixer_of(const ultralight_network *net, int c) {
  mixer m;
  m.v = c / net->branches;
  m.d = net->expand * m.v;
  m.n = net->d_state;
  m.rank = (m.v + 15) / 16;
  m.taps = net->d_conv;
  m.inner = padded(2 * m.d);
  m.projected = padded(2 * m.n + m.rank);
  m.out = padded(m.v);
  return m;
}

/* Scratch of a parallel layer, in floats. */
typedef struct {
  size_t rows, uz, u, projected, y, sums, out, state, total;
} pvm_sizes;

static pvm_sizes pvm_scratch(const ultralight_network *net, int l, int c) {
  const mixer m = mixer_of(net, c);
  const size_t sequences = (size_t)l * net->branches;
  pvm_sizes s;
  s.rows = (size_t)l * c + PAD;
  s.uz = sequences * m.inner + PAD;
  s.u = sequences * m.d + PAD;
  s.projected = sequences * m.projected;
  s.y = s.sums = sequences * m.d + PAD;
  s.out = sequences * m.out;
  s.state = (size_t)net->branches * m.n * padded(m.d);
  s.total = s.rows + s.uz + s.u + s.projected + s.y + s.sums + s.out + s.state;
  return s;
}

/* One step of one sequence in COLUMNS vectors of its channels: state (n, ld) and y. A (n, ld) holds A / log(2), so that
   decays are 2^x with x <= 0: within 4 units in the last place, NaN becomes a number. MAGIC has nothing in its last bits,
   which are then the exponent. Vectors go side by side, so that none waits for its last result. */
INLINE void scan_tile(float *state, const float *A, int ld, int n, const float *u, const float *delta, const float *B,
                      const float *C, float *y, const int COLUMNS) {
  vec step[3], input[3], sum[3];
  EACH(j) {
    step[j] = load(delta + j * LANES);
    input[j] = step[j] * load(u + j * LANES);
    sum[j] = splat(0);
  }
  for (int k = 0; k < n; k++, state += ld, A += ld) {
    vec x[3], i[3], r[3], q[3];
    EACH(j) x[j] = greater(step[j] * load(A + j * LANES), splat(-126.f));
    EACH(j) i[j] = x[j] + MAGIC;
    EACH(j) r[j] = x[j] - (i[j] - MAGIC);
    EACH(j) q[j] = r[j] * r[j];
    EACH(j) x[j] = (r[j] * 1.327647129e-3f + 9.675540961e-3f) * q[j] + (r[j] * 5.550713092e-2f + 2.402212024e-1f);
    EACH(j) x[j] = x[j] * q[j] + (r[j] * 6.931469440e-1f + 1.f);
    EACH(j) x[j] = (vec)((ints)x[j] + ((ints)i[j] << 23));
    EACH(j) x[j] = x[j] * load(state + j * LANES) + B[k] * input[j];
    EACH(j) store(state + j * LANES, x[j]);
    EACH(j) sum[j] += C[k] * x[j];
  }
  EACH(j) store(y + j * LANES, sum[j]);
}

/* The scan of all branches: y = (C s + D u) SiLU(z), s = exp(delta A) s + delta B u. `y` holds delta on the way. Rows are
   written in order, up to LANES - 1 floats beyond their end. */
static void scan(const mixer *m, int l, int p, const float *uz, const float *u, const float *projected, float *y,
                 float *sums, float *state, const float *delta_weight, const float *delta_bias, const float *A,
                 const float *D) {
  const int d = m->d, dp = padded(d), n = m->n, num = l * p;
  zero(state, (size_t)p * n * dp);
  for (int i = 0; i < num; i++)
    for (int j = 0; j < d; j += LANES) {
      const float *low_rank = projected + (size_t)i * m->projected + 2 * n;
      vec value = load(delta_bias + j);
      for (int r = 0; r < m->rank; r++) value += low_rank[r] * load(delta_weight + r * dp + j);
      store(y + (size_t)i * d + j, vsoftplus(value));
    }
  for (int i = 0; i < num; i++) {
    const size_t at = (size_t)i * d;
    const float *B = projected + (size_t)i * m->projected, *C = B + n;
    float *own = state + (size_t)(i % p) * n * dp;
    for (int j = 0; j < d;) {
      const int left = (d - j + LANES - 1) / LANES, columns = left == 1 ? 1 : left == 2 || left == 4 ? 2 : 3;
      if (columns == 3) scan_tile(own + j, A + j, dp, n, u + at + j, y + at + j, B, C, sums + at + j, 3);
      else if (columns == 2) scan_tile(own + j, A + j, dp, n, u + at + j, y + at + j, B, C, sums + at + j, 2);
      else scan_tile(own + j, A + j, dp, n, u + at + j, y + at + j, B, C, sums + at + j, 1);
      j += columns * LANES;
    }
  }
  for (int i = 0; i < num; i++)
    for (int j = 0; j < d; j += LANES) {
      const size_t at = (size_t)i * d + j;
      const vec z = load(uz + (size_t)i * m->inner + d + j);
      store(y + at, (load(sums + at) + load(D + j) * load(u + at)) * vsilu(z));
    }
}

/* x (l, c padded) -> y (l, o padded); y may be x. */
static void pvm(const ultralight_network *net, const float *x, float *y, int l, int c, int o, float *scratch,
                cursor *weights) {
  const mixer m = mixer_of(net, c);
  const pvm_sizes sizes = pvm_scratch(net, l, c);
  const int p = net->branches, d = m.d, dp = padded(d), ldx = padded(c);
  float *rows = scratch, *uz = rows + sizes.rows, *u = uz + sizes.uz, *projected = u + sizes.u;
  float *scanned = projected + sizes.projected, *sums = scanned + sizes.y, *out = sums + sizes.sums, *state = out + sizes.out;
  const float *norm_weight = take(weights, ldx), *norm_bias = take(weights, ldx), skip = *take(weights, PAD);
  const float *in_proj = take(weights, m.v * m.inner), *taps = take(weights, m.taps * dp), *conv_bias = take(weights, dp);
  const float *x_proj = take(weights, d * m.projected), *delta_weight = take(weights, m.rank * dp);
  const float *delta_bias = take(weights, dp), *A = take(weights, m.n * dp), *D = take(weights, dp);
  const float *out_proj = take(weights, d * m.out), *proj = take(weights, c * padded(o)), *bias = take(weights, padded(o));

  layer_norm(x, ldx, rows, l, c, norm_weight, norm_bias);
  linear(rows, m.v, uz, m.inner, l * p, m.v, m.inner, in_proj, 0);
  for (int t = 0; t < l; t++)
    for (int b = 0; b < p; b++) {
      float *to = u + ((size_t)t * p + b) * d;
      for (int j = 0; j < d; j += LANES) {
        vec sum = load(conv_bias + j);
        for (int k = 0; k < m.taps; k++) {
          const int from = t + k - (m.taps - 1);
          if (from >= 0) sum += load(taps + k * dp + j) * load(uz + ((size_t)from * p + b) * m.inner + j);
        }
        store(to + j, vsilu(sum));
      }
    }
  linear(u, d, projected, m.projected, l * p, d, m.projected, x_proj, 0);
  scan(&m, l, p, uz, u, projected, scanned, sums, state, delta_weight, delta_bias, A, D);
  linear(scanned, d, out, m.out, l * p, d, m.out, out_proj, 0);
  for (int i = 0; i < l * p; i++)
    for (int j = 0; j < m.v; j++) rows[(size_t)i * m.v + j] = out[(size_t)i * m.out + j] + skip * rows[(size_t)i * m.v + j];
  layer_norm(rows, c, uz, l, c, norm_weight, norm_bias);
  linear(uz, c, y, padded(o), l, c, padded(o), proj, bias);
}

/* ---- the bridge ---- */

enum { TAPS = 7, DILATION = 3, REACH = TAPS / 2 * DILATION };

static size_t border_size(int h, int w) { return (size_t)(h + 2 * REACH) * (w + 2 * REACH) + PAD; }

/* COLUMNS vectors of a gate; mean and most begin at the upper left corner of their kernels, rows are ld apart. */
INLINE void gate_tile(const float *mean, const float *most, int ld, const float *kernel, float bias, float *gate,
                      const int COLUMNS) {
  vec sums[4], others[4];
  EACH(j) {
    sums[j] = splat(bias);
    others[j] = splat(0);
  }
  for (int k = 0; k < TAPS; k++, mean += DILATION * ld, most += DILATION * ld, kernel += TAPS)
    UNROLL for (int q = 0; q < TAPS; q++)
      EACH(j) {
        sums[j] += kernel[q] * load(mean + DILATION * q + j * LANES);
        others[j] += kernel[TAPS * TAPS + q] * load(most + DILATION * q + j * LANES);
      }
  EACH(j) store(gate + j * LANES, vsigmoid(sums[j] + others[j]));
}

/* gate (h, w) = sigmoid(convolution of the mean and the maximum over the channels of x) */
static void spatial_gate(const float *x, int h, int w, int c, int real, const float *kernel, float bias, float *border,
                         float *gate) {
  const int ld = w + 2 * REACH;
  float *mean = border, *most = border + border_size(h, w);
  zero(mean, 2 * border_size(h, w));
  for (int i = 0; i < h; i++)
    for (int j = 0; j < w; j++, x += c) {
      float sum, greatest = x[0];
      if (real < LANES) {
        sum = 0;
        for (int k = 0; k < real; k++) {
          sum += x[k];
          greatest = x[k] > greatest ? x[k] : greatest;
        }
      } else {
        vec sums = splat(0), all = load(x);
        for (int k = 0; k < real; k += LANES) {
          sums += load(x + k);
          /* the last vector begins earlier: no padding */
          all = greater(load(x + (k + LANES <= real ? k : real - LANES)), all);
        }
        sum = sum_lanes(sums);
        greatest = greatest_lane(all);
      }
      mean[(i + REACH) * ld + j + REACH] = sum / real;
      most[(i + REACH) * ld + j + REACH] = greatest;
    }
  /* rows are written in order, up to LANES - 1 floats beyond their end */
  for (int i = 0; i < h; i++)
    for (int j = 0, wide; j < w; j += wide ? 4 * LANES : LANES) {
      const float *at = mean + (size_t)i * ld + j, *other = most + (size_t)i * ld + j;
      float *to = gate + (size_t)i * w + j;
      wide = j + 4 * LANES <= w;
      if (wide) gate_tile(at, other, ld, kernel, bias, to, 4);
      else gate_tile(at, other, ld, kernel, bias, to, 1);
    }
}

/* Weight all skip connections in place; see mhsvm.ops.fused.skip_bridge. */
static void bridge(const ultralight_network *net, float *const *skips, int height, int width, float *gates,
                   float *scratch, cursor *weights) {
  const float *kernel = take(weights, 2 * TAPS * TAPS), spatial_bias = *take(weights, 1), *mix = take(weights, 3);
  float averages[LEVELS * ULTRALIGHT_MAX_CHANNELS + 2] = {0}, mixed[LEVELS * ULTRALIGHT_MAX_CHANNELS] = {0};
  float own[LEVELS * ULTRALIGHT_MAX_CHANNELS + PAD];
  int all = 0;
  float *gate = gates;
  for (int s = 0; s < LEVELS; s++) {
    const int real = net->channels[s], c = padded(real), h = height >> (s + 1), w = width >> (s + 1);
    spatial_gate(skips[s], h, w, c, real, kernel, spatial_bias, scratch, gate);
    for (int j = 0; j < c; j += LANES) {
      double sums[LANES] = {0};
      for (int i = 0; i < h; i++) {
        vec part = splat(0);
        for (int k = 0; k < w; k++)
          part += load(skips[s] + ((size_t)i * w + k) * c + j) * (1 + gate[(size_t)i * w + k]);
        for (int q = 0; q < LANES; q++) sums[q] += part[q];
      }
      for (int q = 0; q < LANES && j + q < real; q++) averages[1 + all + j + q] = (float)(sums[q] / ((double)h * w));
    }
    all += real;
    gate += (size_t)h * w;
  }
  for (int i = 0; i < all; i++) mixed[i] = mix[0] * averages[i] + mix[1] * averages[i + 1] + mix[2] * averages[i + 2];
  const float *layer = take(weights, all * padded(all)), *bias = take(weights, padded(all));
  linear(mixed, 0, own, 0, 1, all, padded(all), layer, bias);
  for (int i = 0; i < all; i += LANES) store(own + i, vsigmoid(load(own + i)));
  gate = gates;
  for (int s = 0, first = 0; s < LEVELS; first += net->channels[s++]) {
    const int c = padded(net->channels[s]), l = (height >> (s + 1)) * (width >> (s + 1));
    float channel[ULTRALIGHT_MAX_CHANNELS] = {0};
    for (int j = 0; j < net->channels[s]; j++) channel[j] = own[first + j];
    for (int i = 0; i < l; i++)
      for (int j = 0; j < c; j += LANES) {
        float *at = skips[s] + (size_t)i * c + j;
        const vec attended = load(at) * gate[i];
        store(at, load(channel + j) * (attended + load(at)) + attended);
      }
    gate += l;
  }
}

/* ---- the network ---- */

static int channels_at(const ultralight_network *net, int s) { return padded(net->channels[s]); }

INLINE size_t larger(size_t a, size_t b) { return a > b ? a : b; }

/* Sizes of the parts of the scratch memory, in floats. */
typedef struct {
  size_t map, skips[LEVELS], gates, work;
} scratch_sizes;

static scratch_sizes scratch_of(const ultralight_network *net, int height, int width) {
  scratch_sizes s = {0};
  const int first = channels_at(net, 0);
  /* two rows of the first convolution, and the last logits before they are doubled */
  s.map = larger((size_t)2 * width * first, (size_t)(height / 2) * (width / 2));
  s.work = (size_t)4 * (width + 2) * net->in_channels + PAD;
  for (int i = 0; i < LEVELS; i++) {
    const int h = height >> (i + 1), w = width >> (i + 1), c = channels_at(net, i), below = channels_at(net, i + 1);
    s.skips[i] = (size_t)h * w * c;
    s.gates += (size_t)h * w;
    /* the encoder's layer that reads this level has 4 times as many cells as the next one */
    s.map = larger(s.map, (size_t)h * w * larger(c, below));
    s.work = larger(s.work, larger(2 * border_size(h, w), (size_t)w * c + PAD));
    if (i < 2) s.work = larger(s.work, winograd_scratch(w, (int)larger(c, below), (int)larger(c, below)));
    else {
      s.work = larger(s.work, pvm_scratch(net, h * w, net->channels[i]).total);
      s.work = larger(s.work, pvm_scratch(net, i == 4 ? h * w : (h / 2) * (w / 2), net->channels[i + 1]).total);
    }
  }
  s.map += PAD;
  s.gates += PAD;
  return s;
}

int ultralight_check(const ultralight_network *net, int height, int width) {
  int sum = 0;
  if (net->in_channels < 1 || net->in_channels > ULTRALIGHT_MAX_CHANNELS) return 1;
  if (net->num_classes < 1 || net->num_classes > ULTRALIGHT_MAX_CLASSES) return 2;
  for (int i = 0; i < 6; i++) {
    const int c = net->channels[i];
    if (c < 1 || c > ULTRALIGHT_MAX_CHANNELS || (i < LEVELS && c % GROUPS)) return 3;
    sum += c;
    if (i >= 2 && (net->branches < 1 || c % net->branches)) return 4;
  }
  if (net->d_state < 1 || net->d_state > ULTRALIGHT_MAX_STATE) return 5;
  if (net->d_conv < 1 || net->d_conv > ULTRALIGHT_MAX_CONV) return 6;
  if (net->expand < 1 || net->expand > 4) return 7;
  if (height < 32 || width < 32 || height % 32 || width % 32 || (int64_t)height * width > (1 << 26)) return 8;
  return sum ? 0 : 3;
}

const char *ultralight_rule(int broken) {
  static const char *const rules[] = {
      "nothing is wrong", "in_channels is 1 to 512", "num_classes is 1 to 64",
      "channels are six widths of 1 to 512, the first five multiples of 4", "branches divide the channels from the third on",
      "d_state is 1 to 64", "d_conv is 1 to 8", "expand is 1 to 4",
      "height and width are multiples of 32, with 67 million pixels at most"};
  return broken >= 0 && broken < (int)(sizeof rules / sizeof *rules) ? rules[broken] : "unknown rule";
}

size_t ultralight_num_scratch(const ultralight_network *net, int height, int width) {
  const scratch_sizes s = scratch_of(net, height, width);
  size_t total = 2 * s.map + s.gates + s.work;
  for (int i = 0; i < LEVELS; i++) total += s.skips[i] + PAD;
  return total;
}

static size_t pvm_weights(const ultralight_network *net, int c, int o) {
  const mixer m = mixer_of(net, c);
  const size_t dp = padded(m.d);
  return 2 * (size_t)padded(c) + PAD + (size_t)m.v * m.inner + (m.taps + 1) * dp + (size_t)m.d * m.projected +
         (m.rank + 1) * dp + (size_t)m.n * dp + dp + (size_t)m.d * m.out + (size_t)(c + 1) * padded(o);
}

static size_t conv_weights(int c, int o) { return (size_t)9 * c * o + o; }

size_t ultralight_num_weights(const ultralight_network *net) {
  const int32_t *c = net->channels;
  size_t num = conv_weights(net->in_channels, padded(c[0])), all = 0;
  for (int i = 1; i < 6; i++) {
    const int in = padded(c[i - 1]), out = padded(c[i]);
    num += i < 3 ? conv_weights(in, out) + conv_weights(out, in) : pvm_weights(net, c[i - 1], c[i]) + pvm_weights(net, c[i], c[i - 1]);
    num += 4 * (size_t)in; /* GroupNorm of encoder and decoder */
    all += c[i - 1];
  }
  if (net->bridge) num += 2 * TAPS * TAPS + 1 + 3 + (all + 1) * padded((int)all);
  return num + (size_t)net->num_classes * (padded(c[0]) + 1);
}

void ultralight_run(const ultralight_network *net, const float *weights, const float *image, int height, int width,
                    float *scratch, float *logits) {
  const scratch_sizes sizes = scratch_of(net, height, width);
  const int32_t *c = net->channels;
  cursor w = {weights};
  moments sums;
  float scale[ULTRALIGHT_MAX_CHANNELS], shift[ULTRALIGHT_MAX_CHANNELS];
  float *map = scratch, *other = map + sizes.map, *gates = other + sizes.map, *work = gates + sizes.gates, *skips[LEVELS];
  float *at = work + sizes.work;
  for (int i = 0; i < LEVELS; i++, at += sizes.skips[i - 1] + PAD) skips[i] = at;

  for (int i = 0, h = height, v = width; i < LEVELS; i++, h /= 2, v /= 2) {
    const float *from = i ? skips[i - 1] : image;
    const int in = i ? channels_at(net, i - 1) : net->in_channels, out = channels_at(net, i);
    const float *norm = w.at + (i < 3 ? conv_weights(in, out) : pvm_weights(net, c[i - 1], c[i]));
    start_moments(&sums, out);
    if (i < 3) {
      const outputs to = {0, map, skips[i], norm, &sums};
      const float *kernel = take(&w, 9 * in * out), *bias = take(&w, out);
      if (i) winograd(from, &to, h, v, in, out, work, kernel, bias);
      else conv(from, &to, h, v, in, out, work, kernel, bias);
    } else {
      pvm(net, from, map, h * v, c[i - 1], c[i], work, &w);
      add_moments(&sums, map, h * v, out);
      for (int q = 0; q < h / 2; q++) halve(map + (size_t)2 * q * v * out, skips[i] + (size_t)q * (v / 2) * out, v, out, norm);
    }
    group_norm(&sums, out, c[i], norm, norm + out, scale, shift);
    take(&w, 2 * out);
    gelu(skips[i], h * v / 4, out, scale, shift, 0);
  }
  int h = height / 32, v = width / 32;
  pvm(net, skips[4], map, h * v, c[4], c[5], work, &w);
  gelu(map, h * v, channels_at(net, 5), 0, 0, 0);
  if (net->bridge) bridge(net, skips, height, width, gates, work, &w);

  for (int i = LEVELS - 1; i >= 0; i--) {
    const int in = channels_at(net, i + 1), out = channels_at(net, i);
    start_moments(&sums, out);
    if (i >= 2) {
      pvm(net, map, other, h * v, c[i + 1], c[i], work, &w);
      add_moments(&sums, other, h * v, out);
    } else {
      const outputs to = {other, 0, 0, 0, &sums};
      const float *kernel = take(&w, 9 * in * out), *bias = take(&w, out);
      winograd(map, &to, h, v, in, out, work, kernel, bias);
    }
    const float *norm = take(&w, out);
    group_norm(&sums, out, c[i], norm, take(&w, out), scale, shift);
    if (i == LEVELS - 1) {
      gelu(other, h * v, out, scale, shift, skips[i]);
      float *swap = map;
      map = other;
      other = swap;
    } else {
      double_map(other, map, h, v, out, scale, shift, skips[i], work);
      h *= 2;
      v *= 2;
    }
  }
  const int o = channels_at(net, 0);
  for (int k = 0; k < net->num_classes; k++, logits += (size_t)height * width) {
    const float *layer = take(&w, o), bias = *take(&w, 1);
    for (int i = 0; i < h * v; i++) {
      vec sum = splat(0);
      for (int j = 0; j < o; j += LANES) sum += load(map + (size_t)i * o + j) * load(layer + j);
      other[i] = sum_lanes(sum) + bias;
    }
    double_logits(other, logits, h, v, work);
  }
}

void ultralight_minmax(const uint8_t *pixels, float *image, size_t num) {
  int low = 255, high = 0;
  for (size_t i = 0; i < num; i++) {
    low = pixels[i] < low ? pixels[i] : low;
    high = pixels[i] > high ? pixels[i] : high;
  }
  const float span = high > low ? (float)(high - low) : 1.f;
  for (size_t i = 0; i < num; i++) image[i] = (float)(pixels[i] - low) / span * 255.f;
}

void ultralight_probability(float *logits, int num_classes, size_t num) {
  size_t i = 0;
  for (; i < num; i += i + LANES <= num ? LANES : 1) {
    const int lanes = i + LANES <= num ? LANES : 1;
    vec most = splat(0), sum = splat(0);
    if (num_classes == 1) {
      float tail[LANES] = {logits[i]};
      const vec y = vsigmoid(load(lanes == LANES ? logits + i : tail));
      if (lanes == LANES) store(logits + i, y);
      else logits[i] = y[0];
      continue;
    }
    for (int k = 0; k < num_classes; k++) {
      float tail[LANES] = {logits[k * num + i]};
      const vec x = load(lanes == LANES ? logits + k * num + i : tail);
      most = k ? greater(most, x) : x;
    }
    for (int k = 0; k < num_classes; k++) {
      float tail[LANES] = {logits[k * num + i]};
      const vec y = vexp(load(lanes == LANES ? logits + k * num + i : tail) - most);
      sum += y;
      if (lanes == LANES) store(logits + k * num + i, y);
      else logits[k * num + i] = y[0];
    }
    for (int k = 0; k < num_classes; k++)
      if (lanes == LANES) store(logits + k * num + i, load(logits + k * num + i) / sum);
      else logits[k * num + i] /= sum[0];
  }
}
