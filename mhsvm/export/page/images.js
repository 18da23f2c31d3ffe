// The images of the page: added, segmented one after the other, listed and removed.
"use strict";

function add(files) {
  if (!files.length) return say("There is no file in that. Save the image, then drop or choose the file.", true);
  for (const file of files) {
    const image = { id: numAdded++, file, name: file.name || "image", state: "waiting", scale };
    images.push(image);
    image.row = makeRow(image);
    $("list").append(image.row);
  }
  select(images[images.length - files.length]);
  say(broken || (ready ? "" : "Starting …"), Boolean(broken));
  layOut();
  work();
}

/** Files of a drop; a folder is no file. */
function droppedFiles(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.());
  const folder = entries.find((entry) => entry?.isDirectory);
  if (folder) say(`${folder.name} is a folder: open it, select the images in it and drop them.`, true);
  return [
    [...transfer.files].filter((file) => !entries.some((entry) => entry?.isDirectory && entry.name === file.name)),
    folder,
  ];
}

let isWorking = false;
async function work() {
  if (!ready || isWorking) return;
  isWorking = true;
  const next = () => (selected?.state === "waiting" ? selected : images.find(({ state }) => state === "waiting"));
  for (let image = next(); image; image = next()) {
    image.state = "running";
    showRow(image);
    try {
      const { view, thumbnail, ...reply } = await ask("segment", {
        file: image.file,
        thumbnail: THUMBNAIL,
        limit: image === selected ? LIMIT : 0,
      });
      drawThumbnail(image, thumbnail);
      if (view) keepView(image, view);
      Object.assign(image, reply, { state: "done" });
    } catch (error) {
      Object.assign(image, { state: "failed", error: error.message });
    }
    // it may have been removed meanwhile
    if (!images.includes(image)) continue;
    showRow(image);
    showProgress();
    if (image === selected) showSelected();
  }
  isWorking = false;
}

function drawThumbnail(image, thumbnail) {
  const canvas = image.row.querySelector("canvas");
  Object.assign(canvas, { width: thumbnail.width, height: thumbnail.height });
  canvas.getContext("2d").drawImage(thumbnail, 0, 0);
  thumbnail.close();
}

function remove(image) {
  const at = images.indexOf(image),
    isInList = $("list").contains(document.activeElement);
  images.splice(at, 1);
  image.row.remove();
  dropView(image.id);
  if (image === selected) select(images[Math.min(at, images.length - 1)] ?? null, isInList);
  layOut();
  // the focus must not stay on parts that are hidden now
  if (!images.length) $("files").focus();
  else if (isInList && images.length === 1) $("remove").focus();
}

function removeAll() {
  for (const image of images.splice(0)) {
    image.row.remove();
    dropView(image.id);
  }
  select(null);
  say("");
  layOut();
  $("files").focus();
}

function makeRow({ id, name }) {
  const row = make(
    "li",
    { id: `image-${id}`, role: "option", tabIndex: -1, title: name },
    make("canvas", { width: 1, height: 1 }),
    make("b", {}, name),
    make("span", { className: "note" }, "waiting"),
  );
  row.setAttribute("aria-selected", false);
  return row;
}

function showRow(image) {
  image.row.querySelector(".note").textContent = describe(image);
  image.row.classList.toggle("failed", image.state === "failed");
}

function describe(image) {
  if (image.state === "failed") return image.error;
  if (image.state !== "done") return image.state === "running" ? "segmenting …" : "waiting";
  return models
    .map((model, i) => `${letters[i]} ${percent(image, sum(labelAreas(image.areas[i], model, thresholds[i])))}`.trim())
    .join(" · ");
}

function sum(values) {
  return values.reduce((a, b) => a + b, 0);
}

function percent(image, area) {
  return `${formatShort((100 * area) / (image.width * image.height))} %`;
}

function layOut() {
  document.body.classList.toggle("empty", !images.length);
  $("work").hidden = !images.length;
  $("work").classList.toggle("several", images.length > 1);
  $("list").hidden = images.length < 2;
  document.querySelector("[data-save=table]").textContent = images.length > 1 ? "Table of all (CSV)" : "Table (CSV)";
  $("clear").hidden = !images.length;
  showProgress();
}

function showProgress() {
  const done = images.filter(({ state }) => state === "done").length,
    failed = images.filter(({ state }) => state === "failed").length;
  const isBusy = !broken && done + failed < images.length;
  $("progress").hidden = $("count").hidden = !isBusy;
  Object.assign($("progress"), { max: images.length || 1, value: done + failed });
  $("count").textContent = `${done + failed} of ${images.length}`;
  if (isBusy || broken || !images.length) return;
  const all = `${done} of ${images.length} images are segmented${failed ? `; ${failed} could not be read` : ""}.`;
  say(images.length > 1 ? all : `${images[0].name}: ${describe(images[0])}`, failed > 0);
}
