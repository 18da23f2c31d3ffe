// The Worker of the page: reads image files, runs the networks, measures masks and writes files.
// It keeps nothing of an image: the page sends the file again with the small maps of probabilities.
// Shape letters: h w size of the image in pixels, k classes.
"use strict";

const STRIP = 2 ** 22; // pixels that are read back at a time

let models = [],
  networks = [];

/** Each takes a message and returns the reply; `moved` is transferred with it. */
const ANSWERS = { open, segment, view, compare, mask, overlay, polygons, zip };
let last = Promise.resolve();
// one after the other, so that only one image is in memory
self.onmessage = ({ data }) => {
  last = last.then(() => answer(data));
};

async function answer(message) {
  const { id, type } = message;
  try {
    const { moved = [], ...reply } = await ANSWERS[type](message);
    self.postMessage({ type: type === "open" ? "ready" : "result", id, ...reply }, moved);
  } catch (error) {
    self.postMessage({ type: "error", id, message: error.message });
  }
}

async function open(message) {
  models = message.models;
  if (typeof OffscreenCanvas === "undefined")
    throw new Error("This browser is too old: it lacks OffscreenCanvas (2023).");
  networks = await openNetworks(message.wasm, models);
  return { exact: readsPixelsBack() };
}

/** Some browsers change pixels that a page reads back, against fingerprinting. */
function readsPixelsBack() {
  const sent = new ImageData(64, 64),
    context = drawing(64, 64);
  sent.data.forEach((_, i) => {
    sent.data[i] = i % 4 === 3 ? 255 : (i * 7919) >> 4;
  });
  context.putImageData(sent, 0, 0);
  return context.getImageData(0, 0, 64, 64).data.every((value, i) => value === sent.data[i]);
}

function drawing(width, height) {
  const context = new OffscreenCanvas(width, height).getContext("2d", {
    willReadFrequently: true,
    colorSpace: "srgb",
    alpha: true,
  });
  if (!context) throw new Error(`This browser has no memory for ${width} x ${height} pixels.`);
  return context;
}

// ---- reading

/** Run a function on the upright image of a file, and free the image. */
async function withImage(file, use) {
  const image = await readImage(file);
  try {
    return await use(image);
  } finally {
    image.close();
  }
}

/** (h, w) pixels, RGBA over black, in strips: use(pixels, y, rows). Phones have no canvas of a whole photo. */
function readStrips(image, use) {
  const { width, height } = image,
    rows = Math.max(1, Math.min(height, LARGEST_SIDE, Math.floor(STRIP / width)));
  const context = drawing(width, rows);
  context.imageSmoothingEnabled = false;
  for (let y = 0; y < height; y += rows) {
    const num = Math.min(rows, height - y);
    context.fillStyle = "black";
    context.fillRect(0, 0, width, num);
    context.drawImage(image, 0, y, width, num, 0, 0, width, num);
    const { data } = context.getImageData(0, 0, width, num);
    // a canvas without memory is transparent
    if (data[data.length - 1] !== 255) throw new Error(`This browser has no memory for ${width} x ${height} pixels.`);
    use(data, y, num);
  }
}

/** The image (3 bytes a pixel) at the size of each model, by Pillow's two passes. */
function resizeForModels(image) {
  const { width, height } = image;
  const columns = new Map(models.map(({ size: [, w] }) => [w, new Uint8Array(height * w * 3)]));
  readStrips(image, (pixels, y, num) => {
    for (const [w, all] of columns) all.set(resizeColumns(pixels, width, num, w, 4), y * w * 3);
  });
  return models.map(({ size: [h, w] }) => resizeRows(columns.get(w), w, height, h));
}

function scaled(image, limit) {
  const scale = Math.min(1, limit / Math.max(image.width, image.height));
  const width = Math.max(1, Math.round(image.width * scale)),
    height = Math.max(1, Math.round(image.height * scale));
  const context = drawing(width, height);
  context.fillStyle = "black";
  context.fillRect(0, 0, width, height);
  context.imageSmoothingQuality = "high";
  context.drawImage(image, 0, 0, width, height);
  return context.canvas.transferToImageBitmap();
}

// ---- segmenting

/** file -> width, height, maps of each model (k, H, W), their areas, a thumbnail; with `limit`, also a view. */
async function segment({ file, thumbnail, limit }) {
  const start = performance.now();
  return withImage(file, (image) => {
    const { width, height } = image;
    const maps = resizeForModels(image).map((rgb, i) => networks[i](rgb));
    const reply = { width, height, thumbnail: scaled(image, thumbnail) };
    if (limit) reply.view = viewOf(image, maps, limit);
    reply.areas = maps.map((map, i) => measure(map, models[i], width, height));
    const moved = [reply.thumbnail, ...maps.map((map) => map.buffer), ...(reply.view?.moved ?? [])];
    delete reply.view?.moved;
    return { ...reply, maps, ms: performance.now() - start, moved };
  });
}

/** The image and its maps of probabilities with at most `limit` pixels a side, to be shown. */
async function view({ file, maps, limit }) {
  return withImage(file, (image) => viewOf(image, maps, limit));
}

function viewOf(image, maps, limit) {
  const pixels = scaled(image, limit),
    { width, height } = pixels;
  // a copy where the size stays
  const enlarged = maps.map((map, i) => resizeMaps(map, models[i].size[1], models[i].size[0], width, height).slice());
  return { pixels, maps: enlarged, moved: [pixels, ...enlarged.map((map) => map.buffer)] };
}

// ---- writing

/** A PNG of the mask: 0 and 255, or class indices with a palette. */
async function mask({ maps, index, threshold, width, height, colors }) {
  const model = models[index],
    labels = fullMask(maps[index], model, threshold, width, height);
  if (model.classes === 1) for (let i = 0; i < labels.length; i++) labels[i] *= 255;
  return { file: await writePNG(labels, width, height, model.classes > 1 ? colors : null) };
}

/**
 * A PNG of the image with boundaries, as by `mhsvm.draw_prediction`.
 * @param {{index: number, threshold: number, colors: number[][]}[]} layers The models, and colors by label.
 */
async function overlay({ file, maps, layers, width, height }) {
  const thickness = Math.max(1, Math.round(Math.max(width, height) / 300));
  // of each pixel, an index of the palette: 0 none, 1 black around boundaries, against light skin
  const drawn = new Uint8Array(width * height),
    palette = [null, [0, 0, 0]];
  let tint = null;
  for (const [place, { index, threshold, colors }] of layers.entries()) {
    // the first of two is wider, so that both can be seen where they are the same
    const wide = layers.length > 1 && place === 0 ? 2 : 1;
    const labels = fullMask(maps[index], models[index], threshold, width, height);
    for (let label = 1; label < colors.length; label++) {
      const boundary = maskBoundary(labels, width, height, wide * thickness, label);
      for (let i = 0; i < boundary.length; i++) if (boundary[i]) drawn[i] = palette.length;
      palette.push(colors[label]);
    }
    if (layers.length === 1 && colors.length > 2) tint = (i) => labels[i] && colors[labels[i]];
  }
  if (!tint) addCasing(drawn, width, height);
  return withImage(file, async (image) => {
    const rgb = new Uint8Array(3 * width * height);
    readStrips(image, (pixels, y, rows) => {
      for (let i = y * width, from = 0; from < 4 * rows * width; i++, from += 4) {
        const color = palette[drawn[i]],
          over = tint?.(i);
        for (let c = 0; c < 3; c++)
          rgb[3 * i + c] = color ? color[c] : over ? blend(pixels[from + c], over[c]) : pixels[from + c];
      }
    });
    return { file: await writePNG(rgb, width, height) };
  });
}

/** In float32, as in Python. */
function blend(level, color) {
  const f = Math.fround;
  return f(f(level * f(0.6)) + f(color * f(0.4)));
}

/** Mark the neighbors of drawn pixels with 1. */
function addCasing(drawn, width, height) {
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++, i++) {
      if (drawn[i] < 2) continue;
      for (let v = Math.max(y - 1, 0); v <= Math.min(y + 1, height - 1); v++) {
        for (let u = Math.max(x - 1, 0); u <= Math.min(x + 1, width - 1); u++) drawn[v * width + u] ||= 1;
      }
    }
  }
}

/** Contours of each class along the edges of pixels. */
function polygons({ maps, index, threshold, width, height }) {
  const model = models[index],
    labels = fullMask(maps[index], model, threshold, width, height),
    found = [];
  const { left, top, w, h, part } = cropToLesion(labels, width, height);
  for (let label = 1; w && label < Math.max(model.classes, 2); label++) {
    for (const { outer, holes, area } of findPolygons(part, w, h, label)) {
      found.push({ label, area, rings: [outer, ...holes].map((ring) => ring.map(([x, y]) => [x + left, y + top])) });
    }
  }
  return { polygons: found };
}

/** The smallest part of a mask that is not background everywhere around. */
function cropToLesion(labels, width, height) {
  let left = width,
    right = -1,
    top = height,
    bottom = -1;
  for (let y = 0; y < height; y++) {
    const row = labels.subarray(y * width, (y + 1) * width),
      first = row.findIndex(Boolean);
    if (first < 0) continue;
    top = Math.min(top, y);
    bottom = y;
    left = Math.min(left, first);
    for (let x = width - 1; x > right; x--) if (row[x]) right = x;
  }
  const w = Math.max(right - left + 1, 0),
    h = Math.max(bottom - top + 1, 0),
    part = new Uint8Array(w * h);
  for (let y = 0; y < h; y++) part.set(labels.subarray((top + y) * width + left, (top + y) * width + left + w), y * w);
  return { left, top, w, h, part };
}

async function zip({ entries }) {
  return { file: await writeZIP(entries) };
}
