// The user interface.
"use strict";

const element = (id) => document.getElementById(id);
const page = JSON.parse(element("data").textContent);
const worker = new Worker(
  URL.createObjectURL(new Blob([element("modules").textContent, element("worker").textContent], { type: "text/javascript" })),
);
element("use").textContent = page.use;

function show({ width, height, pixels, maps, ms }) {
  const [{ size: [h, w], classes, threshold }] = page.models;
  const mask = toMask(resizeMaps(maps[0], w, h, width, height), classes, threshold), boundary = maskBoundary(mask, width, height, 2);
  const canvas = element("view");
  for (let i = 0; i < boundary.length; i++) if (boundary[i]) pixels.set([0, 255, 120], 4 * i);
  Object.assign(canvas, { width, height, hidden: false });
  canvas.getContext("2d").putImageData(new ImageData(pixels, width, height), 0, 0);
  element("status").textContent = `Lesion: ${countPixels(mask)} of ${mask.length} pixels, in ${ms.toFixed(0)} ms.`;
}

worker.onmessage = ({ data: message }) => {
  if (message.type === "ready") element("status").textContent = "Ready.";
  if (message.type === "result") show(message);
  if (message.type === "error") element("status").textContent = message.message;
};
function segmentFiles(files) {
  for (const file of files) worker.postMessage({ type: "segment", id: file.name, file });
}
element("file").onchange = (event) => segmentFiles(event.target.files);
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault();
  segmentFiles(event.dataTransfer.files);
});
unpackModels(page)
  .then((opened) => worker.postMessage({ type: "open", ...opened }))
  .catch((error) => (element("status").textContent = error.message));
