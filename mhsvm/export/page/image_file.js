// From an image file to an upright image, with the pixels that mhsvm reads in Python, or a sentence that says why not.
// A part of the Worker. Bytes are also read as text of one letter a byte, to find names in them.
"use strict";

const LARGEST_IMAGE = 89478485; // pixels, as in Python
const LARGEST_FILE = 2 ** 29; // bytes
const LARGEST_SIDE = 32767; // pixels of a canvas

/** Files that browsers read, by their first bytes. */
const READ = [
  ["PNG", /^\x89PNG/],
  ["JPEG", /^\xff\xd8\xff/],
  ["WebP", /^RIFF.{4}WEBP/s],
  ["GIF", /^GIF8/],
  ["BMP", /^BM/],
  ["AVIF", /^.{4}ftypavi/s],
];
/** Files that most browsers do not read, and advice. */
const NOT_READ = [
  ["TIFF", /^(II[*+]\0|MM\0[*+])/, "Save it as PNG, or use mhsvm predict, which reads it."],
  ["HEIC", /^.{4}ftyp(he[ivx]|hev|mif1|msf1)/s, "Save it as JPEG, or open this page in Safari, which reads it."],
  ["DICOM", /^.{128}DICM/s, "Export it as PNG, or use mhsvm predict, which reads it."],
  ["JPEG 2000", /^(\0\0\0\x0cjP|\xff\x4f\xff\x51)/, "Save it as PNG, or use mhsvm predict, which reads it."],
  ["PNM", /^P[1-7]\s/, "Save it as PNG, or use mhsvm predict, which reads it."],
  ["PDF", /^%PDF/, "Export its image as PNG or JPEG."],
  ["ZIP", /^PK/, "Extract it and add the images in it."],
  ["SVG", /^\s*(<\?xml|<!|<svg)/, "It has no pixels; export it as PNG."],
  ["text", /^(\xef\xbb\xbf)?[\t\n\r\x20-\x7e\x80-\xff]+$/, "It holds no image."],
];

/**
 * @param {File} file
 * @returns {Promise<ImageBitmap>} Upright, alpha not premultiplied.
 * @throws {Error} A sentence for the user.
 */
async function readImage(file) {
  if (file.size === 0) throw new Error("This file is empty (0 bytes).");
  if (file.size > LARGEST_FILE)
    throw new Error(`This file has ${Math.round(file.size / 2 ** 20)} MB; the limit is ${LARGEST_FILE / 2 ** 20} MB.`);
  const head = await readBytes(file, 2 ** 18),
    text = latin(head);
  const format = READ.find(([, start]) => start.test(text))?.[0];
  const declared = declaredSize(format, head, text);
  if (declared) checkSize(...declared);
  let source = file,
    orientation = 1;
  if (format === "PNG" && head[24] === 16 && head[25] === 0) source = await to8Bits(await readBytes(file));
  if (format === "WebP" && text.startsWith("VP8X", 12) && head[20] & 8)
    [source, orientation] = withoutExif(await readBytes(file));
  if (format === "JPEG") orientation = orientationInXMP(head, text);
  if (await isAnimated(file, format, head, text))
    throw new Error(`This ${format} file is an animation; one image is expected.`);
  let image;
  try {
    image = await createImageBitmap(source, {
      imageOrientation: "from-image",
      colorSpaceConversion: "none",
      premultiplyAlpha: "none",
    });
  } catch (error) {
    // an option that this browser does not know
    if (error instanceof TypeError)
      throw new Error("This browser is too old: it cannot decode images as this page needs (2023).");
    throw new Error(failure(format, text.slice(0, 1024)));
  }
  try {
    checkSize(image.width, image.height);
    const sizes = [image.width, image.height];
    if (declared && !(sizes.includes(declared[0]) && sizes.includes(declared[1]))) {
      throw new Error(
        `This browser shows ${declared.join(" x ")} pixels as ${sizes.join(" x ")}; save the image again.`,
      );
    }
    const isTurned = orientation > 4 && declared?.[0] !== image.width;
    return orientation > 1 && !isTurned ? turnUpright(image, orientation) : image;
  } catch (error) {
    image.close();
    throw error;
  }
}

async function readBytes(file, num = file.size) {
  try {
    return new Uint8Array(await file.slice(0, num).arrayBuffer());
  } catch {
    throw new Error("This file can no longer be read; was it moved, changed, or is it a folder? Add it again.");
  }
}

function latin(bytes) {
  return new TextDecoder("x-user-defined")
    .decode(bytes)
    .replace(/[\uf780-\uf7ff]/g, (letter) => String.fromCharCode(letter.charCodeAt(0) - 0xf700));
}

function failure(format, text) {
  if (format) return `This ${format} file is damaged, or of a kind that this browser does not read.`;
  const [name, , advice] = NOT_READ.find(([, start]) => start.test(text)) ?? [];
  if (name) return `This browser does not read ${name} files. ${advice}`;
  return "This is no image that a browser reads: PNG, JPEG, WebP, BMP, GIF or AVIF.";
}

function checkSize(width, height) {
  const size = `${width} x ${height} pixels`;
  if (width * height > LARGEST_IMAGE)
    throw new Error(`This image is too large: ${size}; the limit is ${Math.floor(LARGEST_IMAGE / 1e6)} million.`);
  if (width > LARGEST_SIDE) throw new Error(`This image is too wide: ${size}; the limit is ${LARGEST_SIDE}.`);
}

/** [w, h] in the header, before orientation; undefined if it is not known. Decoding a large file would end the page. */
function declaredSize(format, bytes, text) {
  const data = new DataView(bytes.buffer, 0, bytes.length);
  const at = { PNG: 16, GIF: 6, BMP: 18 }[format];
  if (at && bytes.length < at + 8) return undefined;
  if (format === "PNG") return [data.getUint32(16), data.getUint32(20)];
  if (format === "GIF") return [data.getUint16(6, true), data.getUint16(8, true)];
  if (format === "BMP" && data.getUint32(14, true) >= 40)
    return [data.getInt32(18, true), Math.abs(data.getInt32(22, true))];
  if (format === "WebP" && text.startsWith("VP8X", 12) && bytes.length > 30) {
    return [24, 27].map((i) => 1 + bytes[i] + 256 * bytes[i + 1] + 65536 * bytes[i + 2]);
  }
  for (let i = 2; format === "JPEG" && i + 9 < bytes.length && bytes[i] === 0xff;) {
    const marker = bytes[i + 1];
    if (marker === 0xff) i++;
    else if (marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker))
      return [data.getUint16(i + 7), data.getUint16(i + 5)];
    else i += 2 + data.getUint16(i + 2);
  }
  return undefined;
}

/** Whether a file has several frames, of which a browser would show the first. */
async function isAnimated(file, format, head, text) {
  if (format === "WebP") return text.startsWith("VP8X", 12) && (head[20] & 2) > 0;
  if (format === "PNG") return text.slice(0, Math.max(text.indexOf("IDAT"), 0)).includes("acTL");
  if (format === "GIF") return countFrames(await readBytes(file)) > 1;
  return false;
}

/** The images in a GIF, which are blocks between others. */
function countFrames(bytes) {
  // after a byte of flags and others, a table of colors
  const table = (flags) => (flags & 128 ? 3 << ((flags & 7) + 1) : 0);
  let num = 0;
  for (let i = 13 + table(bytes[10]); bytes[i] === 0x2c || bytes[i] === 0x21; i++) {
    if (bytes[i] === 0x2c) {
      num++;
      i += 11 + table(bytes[i + 9]);
    } else i += 2;
    while (bytes[i]) i += bytes[i] + 1;
  }
  return num;
}

// ---- orientation, where browsers leave it out: in WebP, and in XMP of a JPEG

/** A WebP file without its EXIF chunk, and the orientation 1..8 in it. */
function withoutExif(bytes) {
  const data = new DataView(bytes.buffer);
  let orientation = 1;
  for (let i = 12; i + 8 <= bytes.length;) {
    const size = data.getUint32(i + 4, true),
      name = latin(bytes.subarray(i, i + 4));
    if (name === "EXIF") {
      orientation = readOrientation(bytes.subarray(i + 8, i + 8 + size));
      bytes.set([74, 85, 78, 75], i); // JUNK
    }
    i += 8 + size + (size % 2);
  }
  bytes[20] &= ~8;
  return [new Blob([bytes]), orientation];
}

/** As Pillow does, only where EXIF has none. */
function orientationInXMP(bytes, text) {
  const exif = text.indexOf("Exif\0\0");
  if (exif >= 0 && readOrientation(bytes.subarray(exif)) > 0) return 1;
  return Number(/tiff:Orientation(?:="|>)([2-8])/.exec(text)?.[1] ?? 1);
}

/** The orientation in a block of EXIF, 1 to 8, or 0 if there is none. */
function readOrientation(block) {
  const start = latin(block.subarray(0, 6)) === "Exif\0\0" ? 6 : 0;
  const data = new DataView(block.buffer, block.byteOffset + start, block.length - start);
  try {
    const little = data.getUint8(0) === 73,
      entries = data.getUint32(4, little);
    for (let i = 0, at = entries + 2; i < data.getUint16(entries, little); i++, at += 12) {
      if (data.getUint16(at, little) !== 0x112) continue;
      const value = data.getUint16(at + 8, little);
      return value >= 1 && value <= 8 ? value : 1;
    }
  } catch (error) {
    if (!(error instanceof RangeError)) throw error; // the block is shorter than it says
  }
  return 0;
}

/** Turn an image by its orientation in EXIF, 2..8; alpha goes onto black. */
function turnUpright(image, orientation) {
  const { width: w, height: h } = image,
    isSideways = orientation > 4;
  const context = new OffscreenCanvas(isSideways ? h : w, isSideways ? w : h).getContext("2d");
  context.fillStyle = "black";
  context.fillRect(0, 0, context.canvas.width, context.canvas.height);
  const turns = [
    [-1, 0, 0, 1, w, 0],
    [-1, 0, 0, -1, w, h],
    [1, 0, 0, -1, 0, h],
    [0, 1, 1, 0, 0, 0],
    [0, 1, -1, 0, h, 0],
    [0, -1, -1, 0, h, w],
    [0, -1, 1, 0, 0, w],
  ];
  context.setTransform(...turns[orientation - 2]);
  context.imageSmoothingEnabled = false;
  context.drawImage(image, 0, 0);
  image.close();
  return context.canvas.transferToImageBitmap();
}
