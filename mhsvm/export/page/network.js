// UltraLight VM-UNet in WebAssembly: several networks in one memory.
// A classic script without DOM: its functions are globals of a page, of a Worker, or of a function in node.
// Shape letters: h w size of the networks' images in pixels, k classes.
"use strict";

/**
 * @typedef {object} NetworkArguments See ultralight.h.
 * @property {number} in_channels
 * @property {number} num_classes
 * @property {number[]} channels Six widths.
 * @property {number} branches
 * @property {number} d_state
 * @property {number} d_conv
 * @property {number} expand
 * @property {boolean} bridge
 */

/**
 * @typedef {object} Model
 * @property {[number, number]} size [h, w] of its images.
 * @property {NetworkArguments} network
 * @property {ArrayBuffer | Uint8Array} weights float32 in the order of the engine, little endian.
 */

const MAX_BYTES = 2 ** 32 - 2 ** 16; // of a memory with addresses of 32 bits

/**
 * Make networks callable.
 * @param {BufferSource} wasm The engine, ultralight.wasm.
 * @param {Model[]} models
 * @returns {Promise<((rgb: Uint8Array | Uint8ClampedArray) => Float32Array)[]>} One function for each model: the resized
 *   image (h, w, 3) -> probabilities (k, h, w). Each throws an Error if the image has another size, or the result is not
 *   finite.
 * @throws {Error} The engine cannot start here, or a model is not one of the engine's.
 */
async function openNetworks(wasm, models) {
  const engine = new Engine((await instantiate(wasm)).exports);
  const opened = models.map((model) => engine.add(model));
  return opened.map((model) => (rgb) => engine.run(model, rgb));
}

async function instantiate(wasm) {
  if (typeof WebAssembly === "undefined") throw new Error("this browser has no WebAssembly, or it is turned off");
  try {
    return (await WebAssembly.instantiate(wasm, {})).instance;
  } catch (error) {
    throw new Error(`this browser cannot run the engine; it needs WebAssembly with SIMD (${error.message})`);
  }
}

/** The engine with its memory: weights of all networks first, then the arrays of one call. */
class Engine {
  constructor(exports) {
    this.exports = exports;
    this.end = exports.__heap_base.value;
  }

  /** The address of `bytes` bytes after all earlier ones, aligned for vectors. */
  take(bytes) {
    const address = Math.ceil(this.end / 16) * 16;
    this.end = address + bytes;
    const { memory } = this.exports;
    const missing = this.end - memory.buffer.byteLength;
    if (missing > 0) {
      try {
        memory.grow(Math.ceil(missing / 65536));
      } catch (error) {
        this.end = address;
        throw new Error(`the network needs ${Math.ceil((address + bytes) / 1e6)} MB of memory, which this device refuses`);
      }
    }
    return address;
  }

  /** Keep a network and its weights. */
  add({ size: [height, width], network, weights }) {
    const { exports } = this;
    const fields = [network.in_channels, network.num_classes, ...network.channels, network.branches];
    fields.push(network.d_state, network.d_conv, network.expand, Number(network.bridge));
    if (fields.length !== 13 || !fields.every(Number.isInteger)) {
      throw new Error(`a network has 13 whole numbers as its arguments; received ${fields}`);
    }
    const address = this.take(4 * fields.length);
    new Int32Array(exports.memory.buffer, address, fields.length).set(fields);
    const broken = exports.ultralight_check(address, height, width);
    if (broken || network.in_channels !== 3) {
      const rule = broken ? this.text(exports.ultralight_rule(broken)) : "images are RGB";
      throw new Error(`the engine cannot run this network on images of ${height} x ${width}: ${rule}`);
    }
    const numbers = asFloats(weights);
    const expected = exports.ultralight_num_weights(address);
    if (numbers.length !== expected) {
      throw new Error(`this network has ${expected} weights; received ${numbers.length}`);
    }
    const at = this.take(4 * numbers.length);
    new Float32Array(exports.memory.buffer, at, numbers.length).set(numbers);
    return { address, weights: at, height, width, classes: network.num_classes, scratch: this.numScratch(address, height, width) };
  }

  /** Floats of scratch memory, which the engine counts in 32 bits. */
  numScratch(address, height, width) {
    const { exports } = this;
    // small images need more a pixel, so that this is an upper bound
    const bound = (exports.ultralight_num_scratch(address, 32, 32) / 1024) * height * width;
    if (4 * bound > MAX_BYTES) throw new Error(`images of ${height} x ${width} need more memory than WebAssembly has`);
    return exports.ultralight_num_scratch(address, height, width);
  }

  /** (h, w, 3) -> (k, h, w) */
  run({ address, weights, height, width, classes, scratch }, rgb) {
    const { exports } = this, cells = height * width;
    if (!(rgb instanceof Uint8Array || rgb instanceof Uint8ClampedArray) || rgb.length !== 3 * cells) {
      throw new Error(`the network takes ${height} x ${width} x 3 bytes; received ${rgb?.length}`);
    }
    const kept = this.end;
    try {
      const pixels = this.take(3 * cells), image = this.take(12 * cells), work = this.take(4 * scratch);
      const maps = this.take(4 * classes * cells);
      new Uint8Array(exports.memory.buffer, pixels, rgb.length).set(rgb);
      exports.ultralight_minmax(pixels, image, 3 * cells);
      exports.ultralight_run(address, weights, image, height, width, work, maps);
      exports.ultralight_probability(maps, classes, cells);
      const probability = new Float32Array(exports.memory.buffer, maps, classes * cells).slice();
      if (!probability.every(isProbability)) throw new Error("the network's output is not finite: its weights have diverged");
      return probability;
    } finally {
      this.end = kept;
    }
  }

  /** A text of the engine, which ends with a zero. */
  text(address) {
    const bytes = new Uint8Array(this.exports.memory.buffer, address);
    return String.fromCharCode(...bytes.subarray(0, bytes.indexOf(0)));
  }
}

function isProbability(value) {
  return value >= 0 && value <= 1;
}

/** The bytes as float32; they may begin at any address. */
function asFloats(bytes) {
  const { buffer } = new Uint8Array(bytes).slice();
  if (buffer.byteLength % 4) throw new Error(`weights have 4 bytes each; received ${buffer.byteLength} bytes`);
  return new Float32Array(buffer);
}
