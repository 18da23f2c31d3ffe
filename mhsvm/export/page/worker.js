// The Worker of the page: it decodes, resizes and segments images.
"use strict";

let models = [], networks = [];

/** The upright pixels of an image file, RGBA over black. */
async function decode(file) {
  const bitmap = await createImageBitmap(file, { imageOrientation: "from-image", colorSpaceConversion: "none" });
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  const context = canvas.getContext("2d", { willReadFrequently: true, colorSpace: "srgb" });
  context.fillStyle = "black";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  return context.getImageData(0, 0, canvas.width, canvas.height);
}

async function segment({ id, file }) {
  const start = performance.now();
  const { width, height, data } = await decode(file);
  const maps = models.map(({ size: [h, w] }, i) => networks[i](resizeRGB(data, width, height, w, h)));
  const transferred = [data.buffer, ...maps.map((map) => map.buffer)];
  self.postMessage({ type: "result", id, width, height, pixels: data, maps, ms: performance.now() - start }, transferred);
}

async function receive(message) {
  if (message.type === "open") {
    models = message.models;
    networks = await openNetworks(message.wasm, models);
    self.postMessage({ type: "ready" });
  } else if (message.type === "segment") await segment(message);
}

self.onmessage = ({ data: message }) => {
  receive(message).catch((error) => self.postMessage({ type: "error", id: message.id, message: error.message }));
};
