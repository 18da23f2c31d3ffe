// Masks at the size of the image, some rows at a time, and their areas.
// A part of the Worker; `models` are those of worker.js.
// Shape letters: h w size of the image in pixels, k classes.
"use strict";

const GRID = Float32Array.from({ length: 1001 }, (_, i) => i / 1000); // thresholds with counted areas

/** Maps at the size of the image, as by `resizeMaps`, some rows at a time: use(maps, y, rows), maps (k, rows, w). */
function enlarge(map, { size: [h, w], classes }, width, height, use) {
  const columns = floatFilter(w, width),
    { taps, first, count, weights } = floatFilter(h, height);
  const wide = new Float32Array(classes * h * width),
    rows = Math.max(1, Math.min(height, Math.floor(2 ** 20 / width)));
  for (let k = 0; k < classes; k++) {
    filterColumns(
      map.subarray(k * h * w, (k + 1) * h * w),
      w,
      h,
      width,
      columns,
      wide.subarray(k * h * width, (k + 1) * h * width),
    );
  }
  for (let y = 0; y < height; y += rows) {
    const num = Math.min(rows, height - y),
      out = new Float32Array(classes * num * width);
    const part = { taps, first: first.subarray(y), count: count.subarray(y), weights: weights.subarray(y * taps) };
    for (let k = 0; k < classes; k++) {
      const to = out.subarray(k * num * width, (k + 1) * num * width);
      filterRows(wide.subarray(k * h * width, (k + 1) * h * width), width, num, part, to);
    }
    use(out, y, num);
  }
}

/**
 * Pixels of a lesion at each threshold, or of each class.
 * @returns {{own: number, grid: Uint32Array} | {classes: number[]}} At the model's threshold, and at i / 1000.
 */
function measure(map, model, width, height) {
  if (model.classes > 1) {
    const classes = new Array(model.classes).fill(0);
    enlarge(map, model, width, height, (maps) => {
      const labels = toMask(maps, model.classes, 0);
      for (let i = 0; i < labels.length; i++) classes[labels[i]]++;
    });
    return { classes };
  }
  const grid = new Uint32Array(GRID.length),
    level = Math.fround(model.threshold);
  let own = 0;
  enlarge(map, model, width, height, (maps) => {
    for (let i = 0; i < maps.length; i++) {
      const p = maps[i];
      let bin = Math.floor(p * 1000);
      if (p < GRID[bin]) bin--;
      else if (p >= GRID[bin + 1]) bin++;
      grid[bin]++;
      if (p >= level) own++;
    }
  });
  for (let i = grid.length - 2; i >= 0; i--) grid[i] += grid[i + 1];
  return { own, grid };
}

/** The mask at the size of the image, uint8 (h, w). */
function fullMask(map, model, threshold, width, height) {
  const mask = new Uint8Array(width * height);
  enlarge(map, model, width, height, (maps, y) => mask.set(toMask(maps, model.classes, threshold), y * width));
  return mask;
}

/** Dice of two models; several classes: of each class but the background. NaN where both masks are empty. */
function compare({ maps, thresholds, width, height }) {
  const [a, b] = models.map((model, i) => fullMask(maps[i], model, thresholds[i], width, height));
  const equal = models[0].classes === models[1].classes,
    labels = equal ? Math.max(models[0].classes - 1, 1) : 1;
  const both = new Array(labels).fill(0),
    either = new Array(labels).fill(0);
  for (let i = 0; i < a.length; i++) {
    // with different classes, all but the background
    const x = equal ? a[i] : Math.min(a[i], 1),
      y = equal ? b[i] : Math.min(b[i], 1);
    if (x) either[x - 1]++;
    if (y) either[y - 1]++;
    if (x && x === y) both[x - 1]++;
  }
  return { dice: both.map((num, i) => (2 * num) / either[i]) };
}
