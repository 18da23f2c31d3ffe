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
INLINE vec greater(vec a, vec b) { return choose(a > b, a, b); }
INLINE int padded(int n) { return (n + PAD - 1) / PAD * PAD; }
/* NaN stays NaN */
INLINE vec clamp(vec x, float low, float high) {
  x = choose(x < splat(low), splat(low), x);
  return choose(x > splat(high), splat(high), x);
}

INLINE float sum_lanes(vec x) {
#if LANES == 8
  return ((x[0] + x[4]) + (x[1] + x[5])) + ((x[2] + x[6]) + (x[3] + x[7]));
#else
  return (x[0] + x[1]) + (x[2] + x[3]);
#endif
}

/* exp(x) = 2^k exp(r) with |r| <= log(2) / 2; the polynomial is that of Cephes, 2 units in the last place */
INLINE vec vexp(vec x) {
  x = clamp(x, -87.33f, 88.3f);
  const vec magic = splat(12582912.f); /* 1.5 2^23: adding it rounds to an integer */
  vec k = x * 1.44269504f + magic;
  ints n = (ints)k - (ints)magic;
  k -= magic;
  vec r = x - k * 0.693359375f + k * 2.12194440e-4f;
  vec p = r * 1.9875691500e-4f + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  return (p * r * r + r + 1.f) * (vec)((n + 127) << 23);
}

/* 2^x for x <= 0, within 4 units in the last place; NaN becomes a number. The magic number has nothing in its last bits,
   so that they are the exponent. */
INLINE vec exp2_negative(vec x) {
  x = choose(x < splat(-126.f), splat(-126.f), x);
  vec k = x + 12582912.f, r = x - (k - 12582912.f);
  vec p = r * 1.327647129e-3f + 9.675540961e-3f;
  p = p * r + 5.550713092e-2f;
  p = p * r + 2.402212024e-1f;
  p = p * r + 6.931469440e-1f;
  p = p * r + 1.f;
  return (vec)((ints)p + ((ints)k << 23));
}

INLINE vec vsigmoid(vec x) { return 1.f / (1.f + vexp(-x)); }
INLINE vec vsilu(vec x) { return x / (1.f + vexp(-x)); }

/* max(x, 0) + log(1 + t) with t = exp(-|x|); log(1 + t) = 2 artanh(t / (2 + t)) as a series */
INLINE vec vsoftplus(vec x) {
  vec t = vexp(-(vec)((ints)x & 0x7fffffff)), s = t / (2.f + t), q = s * s;
  vec p = q * (1.f / 15) + 1.f / 13;
  p = p * q + 1.f / 11;
  p = p * q + 1.f / 9;
  p = p * q + 1.f / 7;
  p = p * q + 1.f / 5;
  p = p * q + 1.f / 3;
  return choose(x > splat(0), x, splat(0)) + 2.f * (s + s * q * p);
}

/* x/2 (1 + erf(x / sqrt 2)), with the rational approximation of erf on |z| < 3.83 of Eigen */
INLINE vec vgelu(vec x) {
  vec z = clamp(x * 0.70710678f, -3.8325069f, 3.8325069f), q = z * z;
  vec a = q * -2.72614225801306e-10f + 2.77068142495902e-08f;
  a = a * q + -2.10102402082508e-06f;
  a = a * q + -5.69250639462346e-05f;
  a = a * q + -7.34990630326855e-04f;
  a = a * q + -2.95459980854025e-03f;
  a = (a * q + -1.60960333262415e-02f) * z;
  vec b = q * -1.45660718464996e-05f + -2.13374055278905e-04f;
  b = b * q + -1.68282697438203e-03f;
  b = b * q + -7.37332916720468e-03f;
  b = b * q + -1.42647390514189e-02f;
  return x * 0.5f * (1.f + a / b);
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

/* Rows x ROWS of a product, COLUMNS vectors of them from column o. */
#define ROWS 4
INLINE void product_tile(const float *const *x, float *y, int ldy, const float *kernel, int ldk, const float *bias, int k,
                         int rows, const int COLUMNS) {
  vec sums[ROWS][3];
  UNROLL for (int i = 0; i < ROWS; i++)
    UNROLL for (int j = 0; j < COLUMNS; j++) sums[i][j] = bias ? load(bias + j * LANES) : splat(0);
  for (int t = 0; t < k; t++, kernel += ldk) {
    vec column[3];
    UNROLL for (int j = 0; j < COLUMNS; j++) column[j] = load(kernel + j * LANES);
    UNROLL for (int i = 0; i < ROWS; i++)
      UNROLL for (int j = 0; j < COLUMNS; j++) sums[i][j] += x[i][t] * column[j];
  }
  UNROLL for (int i = 0; i < ROWS; i++)
    if (i < rows)
      UNROLL for (int j = 0; j < COLUMNS; j++) store(y + (size_t)i * ldy + j * LANES, sums[i][j]);
}

/* y (n, m) = x (n, k) kernel (k, m) + bias; m is a multiple of PAD, rows are ldx and ldy apart. */
static void linear(const float *x, int ldx, float *y, int ldy, int n, int k, int m, const float *kernel,
                   const float *bias) {
  for (int i = 0; i < n; i += ROWS) {
    const float *rows[ROWS];
    /* past the end: the last row again */
    for (int q = 0; q < ROWS; q++) rows[q] = x + (size_t)(i + q < n ? i + q : n - 1) * ldx;
    for (int o = 0; o < m;) {
      const int left = (m - o) / LANES;
      float *to = y + (size_t)i * ldy + o;
      const float *from = bias ? bias + o : 0;
      if (left == 3 || left > 4) {
        product_tile(rows, to, ldy, kernel + o, m, from, k, n - i, 3);
        o += 3 * LANES;
      } else if (left > 1) {
        product_tile(rows, to, ldy, kernel + o, m, from, k, n - i, 2);
        o += 2 * LANES;
      } else {
        product_tile(rows, to, ldy, kernel + o, m, from, k, n - i, 1);
        o += LANES;
      }
    }
  }
}

/* PIXELS neighboring outputs of a 3 x 3 convolution, COLUMNS vectors of channels. */
INLINE void conv_tile(const float *x, int ldx, int c, float *y, int o, const float *kernel, const float *bias,
                      const int PIXELS, const int COLUMNS) {
  vec sums[8][3];
  UNROLL for (int q = 0; q < PIXELS; q++)
    UNROLL for (int j = 0; j < COLUMNS; j++) sums[q][j] = load(bias + j * LANES);
  for (int row = 0; row < 3; row++, x += ldx)
    for (int t = 0; t < 3 * c; t++, kernel += o) {
      vec column[3];
      UNROLL for (int j = 0; j < COLUMNS; j++) column[j] = load(kernel + j * LANES);
      UNROLL for (int q = 0; q < PIXELS; q++)
        UNROLL for (int j = 0; j < COLUMNS; j++) sums[q][j] += x[q * c + t] * column[j];
    }
  UNROLL for (int q = 0; q < PIXELS; q++)
    UNROLL for (int j = 0; j < COLUMNS; j++) store(y + q * o + j * LANES, sums[q][j]);
}

/* 3 x 3 convolution with a border of zeros: x (h, w, c), y (h, w, o); w is at least 4. border: (h + 2, w + 2, c). */
static void conv(const float *x, float *y, int h, int w, int c, int o, float *border, cursor *weights) {
  const float *kernel = take(weights, 9 * c * o), *bias = take(weights, o);
  const int ldx = (w + 2) * c;
  zero(border, (size_t)ldx);
  zero(border + (size_t)(h + 1) * ldx, (size_t)ldx);
  for (int i = 0; i < h; i++) {
    float *row = border + (size_t)(i + 1) * ldx;
    zero(row, (size_t)c);
    zero(row + (w + 1) * c, (size_t)c);
    for (int j = 0; j < w * c; j++) row[c + j] = x[(size_t)i * w * c + j];
  }
  for (int i = 0; i < h; i++)
    for (int at = 0; at < o;) {
      const int left = (o - at) / LANES, columns = left == 1 ? 1 : left == 3 ? 3 : 2;
      const int pixels = columns == 3 || w < 8 ? 4 : columns == 2 ? 6 : 8;
      for (int j = 0; j < w; j += pixels) {
        /* the last tile begins earlier, and computes some outputs again */
        const int first = j + pixels <= w ? j : w - pixels;
        const float *from = border + (size_t)i * ldx + first * c;
        float *to = y + ((size_t)i * w + first) * o + at;
        if (pixels == 8) conv_tile(from, ldx, c, to, o, kernel + at, bias + at, 8, 1);
        else if (pixels == 6) conv_tile(from, ldx, c, to, o, kernel + at, bias + at, 6, 2);
        else if (columns == 3) conv_tile(from, ldx, c, to, o, kernel + at, bias + at, 4, 3);
        else if (columns == 2) conv_tile(from, ldx, c, to, o, kernel + at, bias + at, 4, 2);
        else conv_tile(from, ldx, c, to, o, kernel + at, bias + at, 4, 1);
      }
      at += columns * LANES;
    }
}

/* ---- norms ---- */

/* Per channel: the sum of x, or of (x - mean)^2, over l cells. Sums of 64 cells are added in double. */
static void sum_channels(const float *x, int l, int c, const float *mean, double *sums) {
  for (int j = 0; j < c; j += LANES) {
    double whole[LANES] = {0};
    for (int start = 0; start < l; start += 64) {
      const int end = start + 64 < l ? start + 64 : l;
      vec part[4] = {splat(0), splat(0), splat(0), splat(0)};
      const vec shift = mean ? load(mean + j) : splat(0);
      int i = start;
      for (; i + 4 <= end; i += 4)
        UNROLL for (int q = 0; q < 4; q++) {
          const vec value = load(x + (size_t)(i + q) * c + j) - shift;
          part[q] += mean ? value * value : value;
        }
      for (; i < end; i++) {
        const vec value = load(x + (size_t)i * c + j) - shift;
        part[0] += mean ? value * value : value;
      }
      const vec all = (part[0] + part[1]) + (part[2] + part[3]);
      for (int q = 0; q < LANES; q++) whole[q] += all[q];
    }
    for (int q = 0; q < LANES; q++) sums[j + q] = whole[q];
  }
}

/* GroupNorm of x (l, c) as y = x scale + shift; `real` channels are no padding. */
static void group_norm(const float *x, int l, int c, int real, float *scale, float *shift, cursor *weights) {
  const float *weight = take(weights, c), *bias = take(weights, c);
  double sums[ULTRALIGHT_MAX_CHANNELS];
  float *mean = shift;
  const int width = real / GROUPS;
  const double num = (double)l * width;
  sum_channels(x, l, c, 0, sums);
  for (int j = 0; j < c; j++) mean[j] = 0;
  for (int g = 0; g < GROUPS; g++) {
    double sum = 0;
    for (int j = g * width; j < (g + 1) * width; j++) sum += sums[j];
    for (int j = g * width; j < (g + 1) * width; j++) mean[j] = (float)(sum / num);
  }
  sum_channels(x, l, c, mean, sums);
  for (int j = real; j < c; j++) scale[j] = 0;
  for (int g = 0; g < GROUPS; g++) {
    double sum = 0;
    for (int j = g * width; j < (g + 1) * width; j++) sum += sums[j];
    const float inverse = inverse_root((float)(sum / num) + 1e-5f);
    for (int j = g * width; j < (g + 1) * width; j++) {
      scale[j] = inverse * weight[j];
      shift[j] = bias[j] - mean[j] * scale[j];
    }
  }
}

/* y = x scale + shift for l cells; y may be x. */
static void affine(const float *x, float *y, int l, int c, const float *scale, const float *shift) {
  for (int i = 0; i < l; i++, x += c, y += c)
    for (int j = 0; j < c; j += LANES) store(y + j, load(x + j) * load(scale + j) + load(shift + j));
}

/* y (h/2, w/2, c) = GELU of the maximum of each 2 x 2 square of x scale + shift */
static void halve_gelu(const float *x, float *y, int h, int w, int c, const float *scale, const float *shift) {
  for (int i = 0; i < h / 2; i++)
    for (int j = 0; j < w / 2; j++, y += c) {
      const float *p = x + ((size_t)2 * i * w + 2 * j) * c, *q = p + (size_t)w * c;
      for (int k = 0; k < c; k += LANES) {
        const vec a = load(scale + k), b = load(shift + k);
        const vec up = greater(load(p + k) * a + b, load(p + c + k) * a + b);
        const vec down = greater(load(q + k) * a + b, load(q + c + k) * a + b);
        store(y + k, vgelu(greater(up, down)));
      }
    }
}

/* x = GELU(x) + skip, or without skip */
static void gelu_add(float *x, const float *skip, size_t num) {
  for (size_t i = 0; i < num; i += LANES) {
    vec y = vgelu(load(x + i));
    store(x + i, skip ? y + load(skip + i) : y);
  }
}

/* The two neighbors of place i of twice `num` places, with corners on corners, and the weight of the second. */
INLINE float neighbors(int i, int num, int *first, int *second) {
  const float place = i * ((float)(num - 1) / (float)(2 * num - 1));
  *first = (int)place;
  *second = *first + (*first < num - 1);
  return place - *first;
}

/* y (2h, 2w, c) = x (h, w, c), bilinear; then GELU and + skip where there is one. */
static void double_map(const float *x, float *y, int h, int w, int c, const float *skip) {
  for (int i = 0; i < 2 * h; i++) {
    int up, down;
    const float ay = neighbors(i, h, &up, &down);
    const float *p = x + (size_t)up * w * c, *q = x + (size_t)down * w * c;
    for (int j = 0; j < 2 * w; j++, y += c) {
      int left, right;
      const float ax = neighbors(j, w, &left, &right);
      const float *a = p + left * c, *b = p + right * c, *e = q + left * c, *f = q + right * c;
      for (int k = 0; k < c; k += LANES) {
        const vec top = (1 - ax) * load(a + k) + ax * load(b + k);
        const vec bottom = (1 - ax) * load(e + k) + ax * load(f + k);
        store(y + k, vgelu((1 - ay) * top + ay * bottom) + load(skip + k));
      }
      skip += c;
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
  int states;              /* n, padded */
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
  m.states = padded(m.n);
  m.inner = padded(2 * m.d);
  m.projected = padded(2 * m.states + m.rank);
  m.out = padded(m.v);
  return m;
}

/* Scratch of a parallel layer, in floats. */
typedef struct {
  size_t rows, uz, u, projected, y, out, state, total;
} pvm_sizes;

static pvm_sizes pvm_scratch(const ultralight_network *net, int l, int c) {
  const mixer m = mixer_of(net, c);
  const size_t sequences = (size_t)l * net->branches;
  pvm_sizes s;
  s.rows = (size_t)l * c + PAD;
  s.uz = sequences * m.inner + PAD;
  s.u = sequences * m.d + PAD;
  s.projected = sequences * m.projected;
  s.y = sequences * m.d + PAD;
  s.out = sequences * m.out;
  s.state = (size_t)net->branches * m.d * m.states;
  s.total = s.rows + s.uz + s.u + s.projected + s.y + s.out + s.state;
  return s;
}

/* One step of one sequence: state (d, STATES) and y (d). A holds A / log(2). */
INLINE void scan_step(float *state, const float *u, const float *delta, const float *B, const float *C, const float *A,
                      float *y, int d, const int STATES) {
  vec b[STATES / LANES], c[STATES / LANES];
  UNROLL for (int k = 0; k < STATES / LANES; k++) {
    b[k] = load(B + k * LANES);
    c[k] = load(C + k * LANES);
  }
  for (int j = 0; j < d; j++, state += STATES, A += STATES) {
    const float du = delta[j] * u[j];
    vec sum = splat(0);
    UNROLL for (int k = 0; k < STATES / LANES; k++) {
      const vec s = exp2_negative(delta[j] * load(A + k * LANES)) * load(state + k * LANES) + du * b[k];
      store(state + k * LANES, s);
      sum += s * c[k];
    }
    y[j] = sum_lanes(sum);
  }
}

/* The scan of all branches: y = (C s + D u) SiLU(z), s = exp(delta A) s + delta B u. */
static void scan(const mixer *m, int l, int p, const float *uz, const float *u, const float *projected, float *y,
                 float *state, const float *delta_weight, const float *delta_bias, const float *A, const float *D) {
  float delta[ULTRALIGHT_MAX_CHANNELS * 4 + PAD] = {0}, sums[ULTRALIGHT_MAX_CHANNELS * 4 + PAD] = {0};
  const int d = m->d;
  zero(state, (size_t)p * d * m->states);
  for (int i = 0; i < l * p; i++, uz += m->inner, u += d, projected += m->projected, y += d) {
    const float *B = projected, *C = B + m->states, *low_rank = C + m->states, *z = uz + d;
    float *own = state + (size_t)(i % p) * d * m->states;
    for (int j = 0; j < d; j += LANES) {
      vec value = load(delta_bias + j);
      for (int r = 0; r < m->rank; r++) value += low_rank[r] * load(delta_weight + r * padded(d) + j);
      store(delta + j, vsoftplus(value));
    }
    switch (m->states) {
      case 8: scan_step(own, u, delta, B, C, A, sums, d, 8); break;
      case 16: scan_step(own, u, delta, B, C, A, sums, d, 16); break;
      case 32: scan_step(own, u, delta, B, C, A, sums, d, 32); break;
      default:
        for (int j = 0; j < d; j++) {
          const float du = delta[j] * u[j];
          vec sum = splat(0);
          for (int k = 0; k < m->states; k += LANES) {
            float *s = own + j * m->states + k;
            store(s, exp2_negative(delta[j] * load(A + j * m->states + k)) * load(s) + du * load(B + k));
            sum += load(s) * load(C + k);
          }
          sums[j] = sum_lanes(sum);
        }
    }
    /* rows are written in order, up to LANES - 1 floats beyond their end */
    for (int j = 0; j < d; j += LANES)
      store(y + j, (load(sums + j) + load(D + j) * load(u + j)) * vsilu(load(z + j)));
  }
}

/* x (l, c padded) -> y (l, o padded); y may be x. */
static void pvm(const ultralight_network *net, const float *x, float *y, int l, int c, int o, float *scratch,
                cursor *weights) {
  const mixer m = mixer_of(net, c);
  const pvm_sizes sizes = pvm_scratch(net, l, c);
  const int p = net->branches, d = m.d, dp = padded(d), ldx = padded(c);
  float *rows = scratch, *uz = rows + sizes.rows, *u = uz + sizes.uz, *projected = u + sizes.u;
  float *scanned = projected + sizes.projected, *out = scanned + sizes.y, *state = out + sizes.out;
  const float *norm_weight = take(weights, ldx), *norm_bias = take(weights, ldx), skip = *take(weights, PAD);
  const float *in_proj = take(weights, m.v * m.inner), *taps = take(weights, m.taps * dp), *conv_bias = take(weights, dp);
  const float *x_proj = take(weights, d * m.projected), *delta_weight = take(weights, m.rank * dp);
  const float *delta_bias = take(weights, dp), *A = take(weights, d * m.states), *D = take(weights, dp);
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
  scan(&m, l, p, uz, u, projected, scanned, state, delta_weight, delta_bias, A, D);
  linear(scanned, d, out, m.out, l * p, d, m.out, out_proj, 0);
  for (int i = 0; i < l * p; i++)
    for (int j = 0; j < m.v; j++) rows[(size_t)i * m.v + j] = out[(size_t)i * m.out + j] + skip * rows[(size_t)i * m.v + j];
  layer_norm(rows, c, uz, l, c, norm_weight, norm_bias);
  linear(uz, c, y, padded(o), l, c, padded(o), proj, bias);
}

/* ---- the bridge ---- */

enum { TAPS = 7, DILATION = 3, REACH = TAPS / 2 * DILATION };

static size_t border_size(int h, int w) { return (size_t)(h + 2 * REACH) * (w + 2 * REACH) + PAD; }

/* gate (h, w) = sigmoid(convolution of the mean and the maximum over the channels of x) */
static void spatial_gate(const float *x, int h, int w, int c, int real, const float *kernel, float bias, float *border,
                         float *gate) {
  const int ld = w + 2 * REACH;
  float *mean = border, *most = border + border_size(h, w);
  zero(mean, 2 * border_size(h, w));
  for (int i = 0; i < h; i++)
    for (int j = 0; j < w; j++, x += c) {
      float sum = 0, greatest = x[0];
      for (int k = 0; k < real; k++) {
        sum += x[k];
        greatest = x[k] > greatest ? x[k] : greatest;
      }
      mean[(i + REACH) * ld + j + REACH] = sum / real;
      most[(i + REACH) * ld + j + REACH] = greatest;
    }
  /* rows are written in order, up to LANES - 1 floats beyond their end */
  for (int i = 0; i < h; i++)
    for (int j = 0; j < w; j += LANES) {
      vec sum = splat(bias);
      for (int k = 0; k < TAPS; k++)
        UNROLL for (int q = 0; q < TAPS; q++) {
          const int from = (i + DILATION * k) * ld + j + DILATION * q;
          sum += kernel[k * TAPS + q] * load(mean + from) + kernel[TAPS * TAPS + k * TAPS + q] * load(most + from);
        }
      store(gate + (size_t)i * w + j, vsigmoid(sum));
    }
}

/* Weight all skip connections in place; see mhsvm.ops.fused.skip_bridge. */
static void bridge(const ultralight_network *net, float *const *skips, int height, int width, float *gates,
                   float *scratch, cursor *weights) {
  const float *kernel = take(weights, 2 * TAPS * TAPS), spatial_bias = *take(weights, 1), *mix = take(weights, 3);
  float averages[LEVELS * ULTRALIGHT_MAX_CHANNELS + 2] = {0}, mixed[LEVELS * ULTRALIGHT_MAX_CHANNELS];
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
  const size_t cells = (size_t)height * width;
  s.work = (size_t)(height + 2) * (width + 2) * net->in_channels;
  for (int i = 0; i < LEVELS; i++) {
    const int h = height >> (i + 1), w = width >> (i + 1);
    const size_t c = channels_at(net, i), below = channels_at(net, i + 1);
    s.skips[i] = (size_t)h * w * c;
    s.gates += (size_t)h * w;
    s.map = larger(s.map, larger((cells >> (2 * i)) * c, (cells >> (2 * i + 2)) * larger(c, below)));
    s.work = larger(s.work, 2 * border_size(h, w));
    /* the encoder's layer that reads this level, and the decoder's that reads the one below */
    if (i < 2) s.work = larger(s.work, (size_t)(h + 2) * (w + 2) * larger(c, below));
    else {
      s.work = larger(s.work, pvm_scratch(net, h * w, net->channels[i]).total);
      s.work = larger(s.work, pvm_scratch(net, i == 4 ? h * w : (h / 2) * (w / 2), net->channels[i + 1]).total);
    }
  }
  s.work = larger(s.work, (size_t)(height / 8 + 2) * (width / 8 + 2) * channels_at(net, 2));
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
         (m.rank + 1) * dp + (size_t)m.d * m.states + dp + (size_t)m.d * m.out + (size_t)(c + 1) * padded(o);
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
  float scale[ULTRALIGHT_MAX_CHANNELS], shift[ULTRALIGHT_MAX_CHANNELS];
  float *map = scratch, *other = map + sizes.map, *gates = other + sizes.map, *work = gates + sizes.gates, *skips[LEVELS];
  float *at = work + sizes.work;
  for (int i = 0; i < LEVELS; i++, at += sizes.skips[i - 1] + PAD) skips[i] = at;

  for (int i = 0, h = height, v = width; i < LEVELS; i++, h /= 2, v /= 2) {
    const float *from = i ? skips[i - 1] : image;
    if (i < 3) conv(from, map, h, v, i ? channels_at(net, i - 1) : net->in_channels, channels_at(net, i), work, &w);
    else pvm(net, from, map, h * v, c[i - 1], c[i], work, &w);
    group_norm(map, h * v, channels_at(net, i), c[i], scale, shift, &w);
    halve_gelu(map, skips[i], h, v, channels_at(net, i), scale, shift);
  }
  int h = height / 32, v = width / 32;
  pvm(net, skips[4], map, h * v, c[4], c[5], work, &w);
  gelu_add(map, 0, (size_t)h * v * channels_at(net, 5));
  if (net->bridge) bridge(net, skips, height, width, gates, work, &w);

  for (int i = LEVELS - 1; i >= 0; i--) {
    const int o = channels_at(net, i);
    if (i >= 2) pvm(net, map, map, h * v, c[i + 1], c[i], work, &w);
    else {
      conv(map, other, h, v, channels_at(net, i + 1), o, work, &w);
      float *swap = map;
      map = other;
      other = swap;
    }
    group_norm(map, h * v, o, c[i], scale, shift, &w);
    affine(map, map, h * v, o, scale, shift);
    if (i == LEVELS - 1) gelu_add(map, skips[i], (size_t)h * v * o);
    else {
      double_map(map, other, h, v, o, skips[i]);
      float *swap = map;
      map = other;
      other = swap;
      h *= 2;
      v *= 2;
    }
  }
  const int o = channels_at(net, 0);
  for (int k = 0; k < net->num_classes; k++) {
    const float *layer = take(&w, o), bias = *take(&w, 1);
    for (int i = 0; i < h * v; i++) {
      vec sum = splat(0);
      for (int j = 0; j < o; j += LANES) sum += load(map + (size_t)i * o + j) * load(layer + j);
      other[i] = sum_lanes(sum) + bias;
    }
    for (int i = 0; i < height; i++) {
      int up, down;
      const float ay = neighbors(i, h, &up, &down);
      for (int j = 0; j < width; j++) {
        int left, right;
        const float ax = neighbors(j, v, &left, &right);
        const float *p = other + (size_t)up * v, *q = other + (size_t)down * v;
        *logits++ = (1 - ay) * ((1 - ax) * p[left] + ax * p[right]) + ay * ((1 - ax) * q[left] + ax * q[right]);
      }
    }
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
