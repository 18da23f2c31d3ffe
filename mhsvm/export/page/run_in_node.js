// Runs a written page under node, for its comparison with the network: node run_in_node.js PAGE SHA256
// Input: for each image, height and width (uint32, little endian) and bytes (H, W, 3). Output: float32 (k, h, w).
"use strict";
const fs = require("node:fs");

/** The content of the page's script element with this id. */
function part(html, id) {
  return html.match(new RegExp(`<script(?=[^>]*\\sid="${id}")[^>]*>([^]*?)</script>`))[1];
}

/** The next bytes of the input, or null at its end. */
function read(num) {
  const bytes = Buffer.alloc(num);
  for (let at = 0; at < num; ) {
    const got = fs.readSync(0, bytes, at, num - at, null);
    if (got === 0) return null;
    at += got;
  }
  return bytes;
}

function write(array) {
  const bytes = Buffer.from(array.buffer, array.byteOffset, array.byteLength);
  for (let at = 0; at < bytes.length; ) at += fs.writeSync(1, bytes, at);
}

async function main() {
  const html = fs.readFileSync(process.argv[2], "utf8");
  const names = "resizeRGB, openNetworks, unpackModels";
  const { resizeRGB, openNetworks, unpackModels } = new Function(`${part(html, "modules")}\nreturn { ${names} };`)();
  const { wasm, models } = await unpackModels(JSON.parse(part(html, "data")));
  const index = models.findIndex((model) => model.sha256 === process.argv[3]);
  const run = (await openNetworks(wasm, models))[index];
  const [newHeight, newWidth] = models[index].size;
  for (let header = read(8); header !== null; header = read(8)) {
    const height = header.readUInt32LE(0), width = header.readUInt32LE(4);
    write(run(resizeRGB(read(3 * height * width), width, height, newWidth, newHeight)));
  }
}

main().catch((error) => {
  console.error(error.message);
  process.exit(1);
});
