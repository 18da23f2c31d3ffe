// Painting: the image, boundaries, masks and probabilities, at the size on the screen.
// Shape letters: h w size of the view in pixels, k classes.
"use strict";

// Okabe & Ito 2008, "Color Universal Design", as in mhsvm/inference/overlay.py
const SKY_BLUE = [86, 180, 233],
  VERMILLION = [213, 94, 0],
  YELLOW = [240, 228, 66],
  BLUISH_GREEN = [0, 158, 115];
const ORANGE = [230, 159, 0],
  BLUE = [0, 114, 178],
  REDDISH_PURPLE = [204, 121, 167];
const CLASS_COLORS = [SKY_BLUE, VERMILLION, YELLOW, BLUISH_GREEN, ORANGE, BLUE, REDDISH_PURPLE];
const MODEL_COLORS = [YELLOW, SKY_BLUE];
const BOTH = [255, 255, 255],
  BLACK = [0, 0, 0];

/** Colors by label of a model, the background first. */
function labelColors(model, index) {
  if (model.classes === 1) return [BLACK, MODEL_COLORS[index]];
  return Array.from({ length: model.classes }, (_, label) =>
    label ? CLASS_COLORS[(label - 1) % CLASS_COLORS.length] : BLACK,
  );
}

function css([red, green, blue]) {
  return `rgb(${red} ${green} ${blue})`;
}

/** Colors of probabilities: viridis of matplotlib between nine of its colors. */
const RAMP = (() => {
  const anchors = ["440154", "472d7b", "3b528b", "2c728e", "21918c", "28ae80", "5ec962", "addc30", "fde725"];
  const colors = anchors.map((text) => [0, 2, 4].map((i) => parseInt(text.slice(i, i + 2), 16)));
  return Array.from({ length: 256 }, (_, i) => {
    const at = (i / 255) * (colors.length - 1),
      low = Math.min(Math.floor(at), colors.length - 2);
    return colors[low].map((value, c) => Math.round(value + (at - low) * (colors[low + 1][c] - value)));
  });
})();

/**
 * Margins of a class over the threshold, or over the best other class: at and above 0 inside.
 * @returns {Float32Array} (h + 2, w + 2). Beyond the image, the negative margin next to it: the boundary is at the border.
 */
function paddedMargins(maps, classes, threshold, label, width, height) {
  const w = width + 2,
    out = new Float32Array(w * (height + 2)),
    num = width * height,
    level = Math.fround(threshold);
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0, to = (y + 1) * w + 1; x < width; x++, i++, to++) {
      if (classes === 1) {
        out[to] = maps[i] - level;
        continue;
      }
      let other = -1;
      for (let k = 0; k < classes; k++) if (k !== label && maps[k * num + i] > other) other = maps[k * num + i];
      out[to] = maps[label * num + i] - other;
    }
  }
  const outside = (value) => -Math.max(Math.abs(value), 1e-6);
  for (let y = 1; y <= height; y++) {
    out[y * w] = outside(out[y * w + 1]);
    out[y * w + w - 1] = outside(out[y * w + w - 2]);
  }
  for (let x = 0; x < w; x++) {
    out[x] = outside(out[w + x]);
    out[(height + 1) * w + x] = outside(out[height * w + x]);
  }
  return out;
}

/** Sides of a square that the boundary joins, by the corners that are inside: top 0, right 1, bottom 2, left 3. */
const SIDES = [
  [],
  [3, 0],
  [0, 1],
  [3, 1],
  [1, 2],
  [3, 0, 1, 2],
  [0, 2],
  [3, 2],
  [2, 3],
  [2, 0],
  [0, 1, 2, 3],
  [2, 1],
  [1, 3],
  [1, 0],
  [0, 3],
  [],
];

/** The boundary of a class, smooth between the centers of pixels, as a path in pixels of the view. */
function boundaryPath(margins, width, height) {
  const w = width + 2,
    path = new Path2D();
  for (let y = 0; y <= height; y++) {
    for (let x = 0; x <= width; x++) {
      const i = y * w + x,
        a = margins[i],
        b = margins[i + 1],
        c = margins[i + w + 1],
        d = margins[i + w];
      const sides = SIDES[(a >= 0) + 2 * (b >= 0) + 4 * (c >= 0) + 8 * (d >= 0)];
      for (let s = 0; s < sides.length; s++) {
        const side = sides[s];
        let px = x - 0.5,
          py = y - 0.5;
        if (side === 0) px += a / (a - b);
        else if (side === 1) {
          px += 1;
          py += b / (b - c);
        } else if (side === 2) {
          px += d / (d - c);
          py += 1;
        } else py += a / (a - d);
        if (s % 2) path.lineTo(px, py);
        else path.moveTo(px, py);
      }
    }
  }
  return path;
}

/** Paths and colors of all classes of all models; with `only`, [index, label], of that one, in white. */
function boundaries(view, models, thresholds, only) {
  const { width, height } = view.pixels,
    found = [];
  models.forEach((model, index) => {
    const colors = labelColors(model, index);
    for (let label = 0; label < colors.length; label++) {
      if (only ? only[0] !== index || only[1] !== label : label === 0) continue;
      const margins = paddedMargins(view.maps[index], model.classes, thresholds[index], label, width, height);
      // the first one wider, so that both can be seen where they are the same
      const wide = !only && models.length > 1 && index === 0 ? 1.8 : 1;
      found.push({ color: only ? BOTH : colors[label], wide, path: boundaryPath(margins, width, height) });
    }
  });
  return found;
}

/** A color as the four bytes of a pixel. */
function word([red, green, blue]) {
  return (0xff000000 | (blue << 16) | (green << 8) | red) >>> 0;
}

/** Pixels of the masks: white, or colors of classes; of two models, white where both have a lesion. */
function maskPixels(view, models, thresholds) {
  const { width, height } = view.pixels,
    out = new ImageData(width, height),
    words = new Uint32Array(out.data.buffer);
  const masks = models.map((model, i) => toMask(view.maps[i], model.classes, thresholds[i]));
  if (masks.length > 1) {
    const colors = [BLACK, ...MODEL_COLORS, BOTH].map(word);
    for (let i = 0; i < words.length; i++) words[i] = colors[(masks[0][i] ? 1 : 0) + (masks[1][i] ? 2 : 0)];
  } else {
    const colors = (models[0].classes > 1 ? labelColors(models[0], 0) : [BLACK, BOTH]).map(word);
    for (let i = 0; i < words.length; i++) words[i] = colors[masks[0][i]];
  }
  return out;
}

/** Pixels of one map of probabilities. */
function probabilityPixels(map, width, height) {
  const out = new ImageData(width, height),
    words = new Uint32Array(out.data.buffer),
    colors = RAMP.map(word);
  for (let i = 0; i < map.length; i++) words[i] = colors[(map[i] * 255.999) | 0];
  return out;
}

/**
 * Paint a view on a canvas.
 * @param {HTMLCanvasElement} canvas
 * @param {{pixels: ImageBitmap, maps: Float32Array[]}} view
 * @param {{models: object[], thresholds: number[], mode: string, layer: number[], line: ?object}} shown `layer`: index and
 *   label of the map that the mode "probability" shows; `line`: see state.js.
 */
function paint(canvas, view, { models, thresholds, mode, layer, line }) {
  const { width, height } = view.pixels,
    context = canvas.getContext("2d");
  // small images with larger pixels, so that lines are fine
  const zoom = Math.max(1, Math.round(1200 / Math.max(width, height)));
  if (canvas.width !== width * zoom || canvas.height !== height * zoom)
    Object.assign(canvas, { width: width * zoom, height: height * zoom });
  context.setTransform(zoom, 0, 0, zoom, 0, 0);
  context.imageSmoothingEnabled = mode !== "mask";
  if (mode === "boundary" || mode === "image") context.drawImage(view.pixels, 0, 0);
  else {
    const { classes } = models[layer[0]],
      label = classes > 1 ? layer[1] : 0,
      num = width * height;
    const pixels =
      mode === "mask"
        ? maskPixels(view, models, thresholds)
        : probabilityPixels(view.maps[layer[0]].subarray(label * num, (label + 1) * num), width, height);
    const small = new OffscreenCanvas(width, height);
    small.getContext("2d").putImageData(pixels, 0, 0);
    context.drawImage(small, 0, 0);
  }
  // about two pixels of the screen
  const thin = (Math.max(1, canvas.width / (canvas.clientWidth || canvas.width)) * 2.2) / zoom;
  const lines =
    mode === "mask" || mode === "image"
      ? []
      : boundaries(view, models, thresholds, mode === "probability" ? layer : null);
  if (line) lines.push({ color: BOTH, path: rulerPath(line, width, height, 4 * thin) });
  context.lineCap = context.lineJoin = "round";
  for (const isCasing of [true, false]) {
    for (const { path, color, wide = 1 } of lines) {
      context.lineWidth = thin * (isCasing ? wide + 0.9 : wide);
      context.strokeStyle = isCasing ? "#000a" : css(color);
      context.stroke(path);
    }
  }
}

/** A line with a mark across each end. */
function rulerPath({ from, to }, width, height, mark) {
  const path = new Path2D(),
    [x, y, u, v] = [from[0] * width, from[1] * height, to[0] * width, to[1] * height];
  const length = Math.hypot(u - x, v - y) || 1,
    dx = ((v - y) / length) * mark,
    dy = ((x - u) / length) * mark;
  for (const [a, b, c, d] of [
    [x, y, u, v],
    [x - dx, y - dy, x + dx, y + dy],
    [u - dx, v - dy, u + dx, v + dy],
  ]) {
    path.moveTo(a, b);
    path.lineTo(c, d);
  }
  return path;
}
