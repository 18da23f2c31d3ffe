// Resizing as mhsvm does it in Python: bytes as Pillow, probabilities as torch.
// A classic script without DOM: its functions are globals of a page, of a Worker, or of a function in node.
// Shape letters: H W original size, h w new size, in pixels; c channels, k classes.
"use strict";

/**
 * Pixels that a new pixel is a mean of, and their weights: the triangle filter, stretched where the image shrinks.
 * @param {number} length Pixels of the original.
 * @param {number} newLength Pixels of the result.
 * @returns {{taps: number, first: Int32Array, count: Int32Array, weights: Float64Array}} For each new pixel, the first
 *   pixel of the original, how many there are, and `taps` weights of sum 1.
 */
function triangleFilter(length, newLength) {
  const scale = length / newLength, support = Math.max(scale, 1), inverse = 1 / support;
  const taps = 2 * Math.ceil(support) + 1;
  const first = new Int32Array(newLength), count = new Int32Array(newLength);
  const weights = new Float64Array(newLength * taps);
  for (let x = 0; x < newLength; x++) {
    const center = (x + 0.5) * scale;
    const low = Math.max(Math.trunc(center - support + 0.5), 0);
    const num = Math.min(Math.trunc(center + support + 0.5), length) - low;
    let sum = 0;
    for (let i = 0; i < num; i++) {
      const weight = Math.max(1 - Math.abs((i + low - center + 0.5) * inverse), 0);
      weights[x * taps + i] = weight;
      sum += weight;
    }
    for (let i = 0; i < num; i++) weights[x * taps + i] /= sum;
    first[x] = low;
    count[x] = num;
  }
  return { taps, first, count, weights };
}

const FRACTION_BITS = 22; // of Pillow's weights, for pixels of 8 bits
const HALF = 1 << (FRACTION_BITS - 1);

/** The filter with weights in units of 2^-22. */
function fixedPointFilter(length, newLength) {
  const filter = triangleFilter(length, newLength);
  const weights = Int32Array.from(filter.weights, (weight) => Math.trunc(0.5 + weight * (1 << FRACTION_BITS)));
  return { ...filter, weights };
}

/**
 * Resize an image: Pillow's antialiased bilinear filter to the byte, first the width, then the height.
 * Source: Pillow, libImaging/Resample.c; mhsvm/prepare/resize.py.
 * @param {Uint8Array | Uint8ClampedArray} pixels (H, W, c), c 3 or 4; a fourth channel is left out.
 * @param {number} width W
 * @param {number} height H
 * @param {number} newWidth w
 * @param {number} newHeight h
 * @returns {Uint8Array} (h, w, 3)
 * @throws {Error} A size is no whole number from 1 on, or does not fit the pixels.
 */
function resizeRGB(pixels, width, height, newWidth, newHeight) {
  checkSizes({ width, height, newWidth, newHeight });
  const channels = pixels.length / (width * height);
  if (channels !== 3 && channels !== 4) {
    throw new Error(`an image of ${width} x ${height} has 3 or 4 bytes a pixel; received ${pixels.length} bytes`);
  }
  return resizeRows(resizeColumns(pixels, width, height, newWidth, channels), newWidth, height, newHeight);
}

/** (H, W, c) -> (H, w, 3) */
function resizeColumns(pixels, width, height, newWidth, channels) {
  const out = new Uint8Array(height * newWidth * 3);
  if (width === newWidth) {
    if (channels === 3) out.set(pixels);
    else for (let i = 0, j = 0; j < out.length; i += 4, j += 3) {
      out[j] = pixels[i];
      out[j + 1] = pixels[i + 1];
      out[j + 2] = pixels[i + 2];
    }
    return out;
  }
  const { taps, first, count, weights } = fixedPointFilter(width, newWidth);
  for (let y = 0, to = 0; y < height; y++) {
    for (let x = 0; x < newWidth; x++, to += 3) {
      let from = (y * width + first[x]) * channels, red = HALF, green = HALF, blue = HALF;
      for (let i = x * taps, end = i + count[x]; i < end; i++, from += channels) {
        const weight = weights[i];
        red += pixels[from] * weight;
        green += pixels[from + 1] * weight;
        blue += pixels[from + 2] * weight;
      }
      // weights of sum 1 give 0 to 255, and rounding at most 255.001
      out[to] = red >> FRACTION_BITS;
      out[to + 1] = green >> FRACTION_BITS;
      out[to + 2] = blue >> FRACTION_BITS;
    }
  }
  return out;
}

/** (H, w, 3) -> (h, w, 3) */
function resizeRows(pixels, width, height, newHeight) {
  if (height === newHeight) return pixels;
  const { taps, first, count, weights } = fixedPointFilter(height, newHeight);
  const row = 3 * width, out = new Uint8Array(newHeight * row), sums = new Int32Array(row);
  for (let y = 0; y < newHeight; y++) {
    sums.fill(HALF);
    for (let i = 0; i < count[y]; i++) {
      const weight = weights[y * taps + i], from = (first[y] + i) * row;
      for (let x = 0; x < row; x++) sums[x] += pixels[from + x] * weight;
    }
    for (let x = 0; x < row; x++) out[y * row + x] = sums[x] >> FRACTION_BITS;
  }
  return out;
}

/**
 * The triangle filter in the float32 arithmetic of torch.
 * Source: torch, aten/src/ATen/native/cpu/UpSampleKernel.cpp, `_compute_indices_min_size_weights_aa`.
 */
function floatFilter(length, newLength) {
  const f = Math.fround;
  const scale = f(length / newLength), support = scale >= 1 ? scale : 1, inverse = scale >= 1 ? f(1 / scale) : 1;
  const taps = 2 * Math.ceil(support) + 1;
  const first = new Int32Array(newLength), count = new Int32Array(newLength);
  const weights = new Float32Array(newLength * taps);
  for (let x = 0; x < newLength; x++) {
    const center = f(scale * (x + 0.5));
    const low = Math.max(Math.trunc(f(center - support) + 0.5), 0);
    const num = Math.min(Math.max(Math.min(Math.trunc(f(center + support) + 0.5), length) - low, 0), taps);
    let sum = 0;
    for (let i = 0; i < num; i++) {
      const place = f((f(f(i + low) - center) + 0.5) * inverse);
      const weight = Math.abs(place) < 1 ? f(1 - Math.abs(place)) : 0;
      weights[x * taps + i] = weight;
      sum = f(sum + weight);
    }
    if (sum !== 0) for (let i = 0; i < num; i++) weights[x * taps + i] /= sum;
    first[x] = low;
    count[x] = num;
  }
  return { taps, first, count, weights };
}

/**
 * Resize maps of probabilities as the predictor of mhsvm: antialiased bilinear in float32, then limited to 0..1.
 * @param {Float32Array} maps (k, H, W)
 * @param {number} width W
 * @param {number} height H
 * @param {number} newWidth w
 * @param {number} newHeight h
 * @returns {Float32Array} (k, h, w); the same array where the size stays.
 * @throws {Error} A size is no whole number from 1 on, or does not fit the maps.
 */
function resizeMaps(maps, width, height, newWidth, newHeight) {
  checkSizes({ width, height, newWidth, newHeight });
  const classes = maps.length / (width * height);
  if (!Number.isInteger(classes) || classes < 1) {
    throw new Error(`maps of ${width} x ${height} have that many numbers each; received ${maps.length}`);
  }
  if (width === newWidth && height === newHeight) return maps;
  const columns = floatFilter(width, newWidth), rows = floatFilter(height, newHeight);
  const wide = new Float32Array(height * newWidth), out = new Float32Array(classes * newHeight * newWidth);
  for (let k = 0; k < classes; k++) {
    const map = maps.subarray(k * height * width, (k + 1) * height * width);
    filterColumns(map, width, height, newWidth, columns, wide);
    filterRows(wide, newWidth, newHeight, rows, out.subarray(k * newHeight * newWidth, (k + 1) * newHeight * newWidth));
  }
  return out;
}

/**
 * The taps of a new pixel whose products are rounded before they are added: after the first tap, all whole fours. torch's
 * vectors hold these. It adds the rest by fused multiply-adds, which round once, as a sum of doubles then does.
 */
function roundedTaps(count) {
  return count - ((count - 1) % 4);
}

/** (H, W) -> (H, w) */
function filterColumns(map, width, height, newWidth, { taps, first, count, weights }, out) {
  for (let y = 0, to = 0; y < height; y++) {
    for (let x = 0; x < newWidth; x++, to++) {
      let from = y * width + first[x], i = x * taps, sum = 0;
      for (const end = i + roundedTaps(count[x]); i < end; i++) sum = Math.fround(sum + Math.fround(map[from++] * weights[i]));
      for (const end = x * taps + count[x]; i < end; i++) sum = Math.fround(sum + map[from++] * weights[i]);
      out[to] = sum;
    }
  }
}

/** (H, w) -> (h, w), limited to 0..1. */
function filterRows(map, width, newHeight, { taps, first, count, weights }, out) {
  for (let y = 0; y < newHeight; y++) {
    const row = out.subarray(y * width, (y + 1) * width);
    for (let i = 0; i < count[y]; i++) {
      const weight = weights[y * taps + i], from = (first[y] + i) * width;
      // the array rounds sums to float32
      if (i < roundedTaps(count[y])) for (let x = 0; x < width; x++) row[x] += Math.fround(map[from + x] * weight);
      else for (let x = 0; x < width; x++) row[x] += map[from + x] * weight;
    }
    for (let x = 0; x < width; x++) row[x] = Math.min(Math.max(row[x], 0), 1);
  }
}

function checkSizes(sizes) {
  for (const [name, size] of Object.entries(sizes)) {
    if (!Number.isInteger(size) || size < 1) throw new Error(`${name} is a whole number from 1 on; received ${size}`);
  }
}
