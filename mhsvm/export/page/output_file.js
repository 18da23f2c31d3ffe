// Files that the page writes: PNG and ZIP.
// A part of the Worker.
"use strict";

const CRC = Uint32Array.from({ length: 256 }, (_, i) => {
  let crc = i;
  for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? 0xedb88320 ^ (crc >>> 1) : crc >>> 1;
  return crc;
});

/** The checksum of PNG and ZIP. */
function crc32(...parts) {
  let crc = -1;
  for (const bytes of parts) for (let i = 0; i < bytes.length; i++) crc = CRC[(crc ^ bytes[i]) & 255] ^ (crc >>> 8);
  return ~crc >>> 0;
}

/** Numbers as bytes; each [number, bytes], negative for little endian. */
function pack(...fields) {
  const bytes = [];
  for (const [value, size] of fields) {
    const all = Array.from({ length: Math.abs(size) }, (_, i) => Math.floor(value / 256 ** i) % 256);
    bytes.push(...(size < 0 ? all : all.reverse()));
  }
  return Uint8Array.from(bytes);
}

async function deflate(blob) {
  return new Uint8Array(await new Response(blob.stream().pipeThrough(new CompressionStream("deflate"))).arrayBuffer());
}

/** A chunk of a PNG. */
function chunk(name, content) {
  const type = new TextEncoder().encode(name);
  return new Blob([pack([content.length, 4]), type, content, pack([crc32(type, content), 4])]);
}

/**
 * @param {Uint8Array} pixels (h, w) gray levels or indices of the palette, or (h, w, 3).
 * @param {number} width
 * @param {number} height
 * @param {number[][]} [palette] Colors, [red, green, blue].
 * @returns {Promise<Blob>}
 */
async function writePNG(pixels, width, height, palette) {
  const channels = pixels.length / (width * height),
    row = channels * width,
    rows = new Uint8Array(height * (1 + row));
  for (let y = 0, from = 0, to = 0; y < height; y++, from += row, to += 1 + row) {
    if (channels === 1) rows.set(pixels.subarray(from, from + row), to + 1);
    else {
      // colors: the difference to the pixel on the left, filter 1
      rows[to] = 1;
      for (let x = 0; x < row; x++) rows[to + 1 + x] = pixels[from + x] - (x < 3 ? 0 : pixels[from + x - 3]);
    }
  }
  const kind = channels === 3 ? 2 : palette ? 3 : 0;
  return new Blob(
    [
      Uint8Array.from([0x89, 80, 78, 71, 13, 10, 26, 10]),
      chunk("IHDR", pack([width, 4], [height, 4], [8, 1], [kind, 1], [0, 3])),
      ...(palette ? [chunk("PLTE", Uint8Array.from(palette.flat()))] : []),
      chunk("IDAT", await deflate(new Blob([rows]))),
      chunk("IEND", new Uint8Array()),
    ],
    { type: "image/png" },
  );
}

/**
 * A ZIP of files that are compressed already.
 * @param {{name: string, file: Blob}[]} entries
 * @returns {Promise<Blob>}
 */
async function writeZIP(entries) {
  const parts = [],
    directory = [];
  let offset = 0,
    directorySize = 0;
  for (const { name, file } of entries) {
    const path = new TextEncoder().encode(name),
      bytes = new Uint8Array(await file.arrayBuffer());
    // version 2.0, names in UTF-8, stored, the first of January 1980
    const facts = [
      [20, -2],
      [0x800, -2],
      [0, -2],
      [0, -2],
      [33, -2],
      [crc32(bytes), -4],
      [bytes.length, -4],
      [bytes.length, -4],
      [path.length, -2],
      [0, -2],
    ];
    const header = pack([0x04034b50, -4], ...facts);
    parts.push(header, path, file);
    const entry = pack([0x02014b50, -4], [20, -2], ...facts, [0, -2], [0, -2], [0, -2], [0, -4], [offset, -4]);
    directory.push(entry, path);
    offset += header.length + path.length + bytes.length;
    directorySize += entry.length + path.length;
  }
  const end = pack(
    [0x06054b50, -4],
    [0, -4],
    [entries.length, -2],
    [entries.length, -2],
    [directorySize, -4],
    [offset, -4],
    [0, -2],
  );
  return new Blob([...parts, ...directory, end], { type: "application/zip" });
}
