// Bytes out of texts.
// A classic script without DOM: its functions are globals of a page, of a Worker, or of a function in node.
"use strict";

/**
 * Restore bytes from base64 of a zlib stream.
 * @param {string} text
 * @param {number} [size] Bytes of a number: the stream has the first bytes of all numbers, then the second ones, …
 * @returns {Promise<ArrayBuffer>}
 * @throws {Error} The browser is too old, or the text is damaged.
 */
async function unpack(text, size = 1) {
  if (typeof DecompressionStream === "undefined") {
    throw new Error("this browser is too old for this page: it lacks DecompressionStream (2023)");
  }
  try {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    const all = new Uint8Array(await new Response(stream).arrayBuffer()), num = all.length / size;
    return Uint8Array.from(all, (_, i) => all[(i % size) * num + Math.floor(i / size)]).buffer;
  } catch (error) {
    throw new Error(`this page is damaged: download it again (${error.message})`);
  }
}

/**
 * The models of a page, with their weights as float32.
 * @param {object} data The page's data, see mhsvm/export/html_page.py.
 * @returns {Promise<{wasm: ArrayBuffer, models: object[]}>} The parts of the Worker's message "open".
 */
async function unpackModels(data) {
  const weights = await Promise.all(data.models.map((model) => unpack(model.weights, 4)));
  return { wasm: await unpack(data.wasm), models: data.models.map((model, i) => ({ ...model, weights: weights[i] })) };
}
