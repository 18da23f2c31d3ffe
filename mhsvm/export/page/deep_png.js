// PNG files with gray levels of 16 bits, which browsers round down and mhsvm to the nearest.
// A part of the Worker.
"use strict";

/** Of each pass of an interlaced PNG: the first column and row, and the steps to the next ones. */
const ADAM7 = [
  [0, 0, 8, 8],
  [4, 0, 8, 8],
  [0, 4, 4, 8],
  [2, 0, 4, 4],
  [0, 2, 2, 4],
  [1, 0, 2, 2],
  [0, 1, 1, 2],
];

/** A 16-bit gray PNG as one of 8 bits, with the same orientation. */
async function to8Bits(bytes) {
  try {
    const data = new DataView(bytes.buffer),
      width = data.getUint32(16),
      height = data.getUint32(20),
      packed = [],
      kept = [];
    for (let i = 33; i + 12 <= bytes.length;) {
      const size = data.getUint32(i),
        name = latin(bytes.subarray(i + 4, i + 8)),
        content = bytes.subarray(i + 8, i + 8 + size);
      if (name === "IDAT") packed.push(content);
      if (name === "eXIf") kept.push(chunk(name, content));
      i += 12 + size;
    }
    const levels = new Uint8Array(
      await new Response(new Blob(packed).stream().pipeThrough(new DecompressionStream("deflate"))).arrayBuffer(),
    );
    const passes = bytes[28]
      ? ADAM7.map(([x, y, dx, dy]) => [Math.ceil((width - x) / dx), Math.ceil((height - y) / dy)])
      : [[width, height]];
    const out = [];
    let at = 0;
    for (const [w, h] of passes) {
      if (w < 1 || h < 1) continue;
      const end = at + h * (1 + 2 * w);
      if (end > levels.length) throw new RangeError("too few bytes");
      out.push(roundLevels(levels.subarray(at, end), w, h));
      at = end;
    }
    const header = bytes.slice(16, 29);
    header[8] = 8;
    return new Blob([
      bytes.subarray(0, 8),
      chunk("IHDR", header),
      ...kept,
      chunk("IDAT", await deflate(new Blob(out))),
      chunk("IEND", new Uint8Array()),
    ]);
  } catch {
    throw new Error("This PNG file is damaged.");
  }
}

/** Undo the filters of rows with 2 bytes a pixel; levels of 0..65535 become 0..255, each row without a filter. */
function roundLevels(rows, w, h) {
  const length = 2 * w,
    out = new Uint8Array(h * (1 + w));
  let above = new Uint8Array(length);
  for (let y = 0, at = 0; y < h; y++) {
    const filter = rows[at++],
      row = rows.subarray(at, at + length);
    at += length;
    for (let i = 0; i < length; i++) {
      const a = i > 1 ? row[i - 2] : 0,
        b = above[i],
        c = i > 1 ? above[i - 2] : 0;
      if (filter === 1) row[i] += a;
      else if (filter === 2) row[i] += b;
      else if (filter === 3) row[i] += (a + b) >> 1;
      else if (filter === 4) row[i] += paeth(a, b, c);
    }
    for (let x = 0, to = y * (1 + w) + 1; x < w; x++) out[to++] = Math.round((256 * row[2 * x] + row[2 * x + 1]) / 257);
    above = row;
  }
  return out;
}

function paeth(a, b, c) {
  const p = a + b - c,
    pa = Math.abs(p - a),
    pb = Math.abs(p - b),
    pc = Math.abs(p - c);
  return pa <= pb && pa <= pc ? a : pb <= pc ? b : c;
}
