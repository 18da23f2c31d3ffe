// The page: images that were added, the one that is shown, and what its user sets.
"use strict";

const THUMBNAIL = 128; // pixels
const KEPT_VIEWS = 4;
// pixels of a view
const LIMIT = Math.min(Math.max(Math.ceil(Math.max(screen.width, screen.height) * devicePixelRatio), 800), 1600);
const MODES = ["boundary", "mask", "probability", "image"];

const $ = (id) => document.getElementById(id);
const page = JSON.parse($("data").textContent), { models } = page;
// letters where there are two models
const letters = models.length > 1 ? ["A", "B"] : [""];

const images = []; // {id, file, name, state, error, width, height, maps, areas, dice, scale, row}
const thresholds = models.map((model) => model.threshold);
const views = new Map(); // by id, the last ones that were shown
let selected = null, scale = null, ready = false, broken = "", numAdded = 0, compared = 0;

// ---- the Worker

const waiting = new Map();
let worker;

function openWorker() {
  const parts = [$("modules").textContent, $("worker").textContent];
  worker = new Worker(URL.createObjectURL(new Blob(parts, { type: "text/javascript" })));
  worker.onmessage = ({ data: { type, id, message, ...reply } }) => {
    const { resolve, reject } = waiting.get(id);
    waiting.delete(id);
    if (type === "error") reject(new Error(message));
    else resolve(reply);
  };
  worker.onerror = (event) => {
    event.preventDefault();
    const error = new Error("The computation stopped, perhaps for lack of memory. Load this page again.");
    for (const { reject } of waiting.values()) reject(error);
    waiting.clear();
  };
}

function ask(type, message) {
  return new Promise((resolve, reject) => {
    const id = (ask.last = (ask.last ?? 0) + 1);
    waiting.set(id, { resolve, reject });
    worker.postMessage({ type, id, ...message });
  });
}

async function start() {
  try {
    openWorker();
    const { exact } = await ask("open", await unpackModels(page));
    if (!exact) say("This browser changes pixels (protection against fingerprinting): results are not exact. Allow canvas data for this page.", true);
    ready = true;
    work();
  } catch (error) {
    broken = error.message;
    say(broken, true);
    showSelected();
  }
}

// ---- adding images

function add(files) {
  if (!files.length) return say("There is no file in that. Save the image, then drop or choose the file.", true);
  for (const file of files) {
    const image = { id: numAdded++, file, name: file.name || "image", state: "waiting", scale };
    images.push(image);
    image.row = makeRow(image);
    $("list").append(image.row);
  }
  if (!selected) select(images[images.length - files.length]);
  say(broken || (ready ? "" : "Starting …"), Boolean(broken));
  layOut();
  work();
}

/** Files of a drop; a folder is no file. */
function droppedFiles(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.());
  const folder = entries.find((entry) => entry?.isDirectory);
  if (folder) say(`${folder.name} is a folder: open it, select the images in it and drop them.`, true);
  return [[...transfer.files].filter((file) => !entries.some((entry) => entry?.isDirectory && entry.name === file.name)), folder];
}

let isWorking = false;
async function work() {
  if (!ready || isWorking) return;
  isWorking = true;
  for (let image; (image = images.find(({ state }) => state === "waiting")); ) {
    image.state = "running";
    showRow(image);
    try {
      const { view, thumbnail, ...reply } = await ask("segment", { file: image.file, thumbnail: THUMBNAIL, limit: image === selected ? LIMIT : 0 });
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
  const at = images.indexOf(image);
  images.splice(at, 1);
  image.row.remove();
  dropView(image.id);
  if (image === selected) select(images[Math.min(at, images.length - 1)] ?? null, $("list").contains(document.activeElement));
  layOut();
  showProgress();
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

// ---- views

function keepView(image, view) {
  if (!images.includes(image)) return view.pixels.close();
  dropView(image.id);
  views.set(image.id, view);
  for (const id of views.keys()) if (views.size > KEPT_VIEWS && id !== selected?.id) dropView(id);
}

function dropView(id) {
  views.get(id)?.pixels.close();
  views.delete(id);
}

async function showView() {
  const image = selected;
  if (image?.state !== "done") return;
  if (!views.has(image.id)) return loadView();
  const view = views.get(image.id);
  // the last one of those that are kept
  views.delete(image.id);
  views.set(image.id, view);
  $("view").classList.remove("loading");
  paint($("view"), view, { models, thresholds, mode: mode(), layer: layer() });
}

/** One after the other, so that a user who passes by many images does not wait for all of them. */
let isLoading = false;
async function loadView() {
  $("view").classList.add("loading");
  if (isLoading) return;
  isLoading = true;
  const image = selected;
  try {
    keepView(image, await ask("view", { file: image.file, maps: image.maps, limit: LIMIT }));
  } catch (error) {
    if (image === selected) showProblem(error.message);
  }
  isLoading = false;
  if (image !== selected || views.has(image.id)) showView();
}

let frame = 0;
function repaint() {
  cancelAnimationFrame(frame);
  frame = requestAnimationFrame(showView);
}

// ---- the shown image

function select(image, focus = false) {
  selected = image;
  for (const each of images) {
    each.row.setAttribute("aria-selected", each === image);
    each.row.tabIndex = each === image ? 0 : -1;
  }
  image?.row.scrollIntoView({ block: "nearest", inline: "nearest" });
  if (focus) image?.row.focus();
  showSelected();
}

function showSelected() {
  if (!selected) return;
  const { name, state, error, width, height, ms, scale } = selected, isDone = state === "done";
  $("name").textContent = name;
  $("size").textContent = isDone ? `${width} × ${height} pixels, ${formatNumber(ms)} ms` : "";
  for (const id of ["areas", "thresholds", "scale", "one", "modes", "legend"]) $(id).hidden = !isDone;
  $("save").hidden = !isDone && images.length < 2;
  $("view").hidden = !isDone;
  $("problem").hidden = isDone;
  if (!isDone) return showProblem(error || broken || "Segmenting …", Boolean(error || broken));
  showScale(scale);
  showAreas();
  compare();
  repaint();
}

function showProblem(text, isError = true) {
  $("view").hidden = true;
  $("problem").hidden = false;
  $("problem").textContent = text;
  $("problem").classList.toggle("error", isError);
}

function describe(image) {
  if (image.state === "failed") return image.error;
  if (image.state !== "done") return image.state === "running" ? "segmenting …" : "waiting";
  return models.map((model, i) => `${letters[i]} ${percent(image, sum(labelAreas(image.areas[i], model, thresholds[i])))}`.trim()).join(" · ");
}

function sum(values) {
  return values.reduce((a, b) => a + b, 0);
}

function percent(image, area) {
  return `${formatShort((100 * area) / (image.width * image.height))} %`;
}

function makeRow({ id, name }) {
  const row = make("li", { id: `image-${id}`, role: "option", tabIndex: -1, title: name }, make("canvas", { width: 1, height: 1 }), make("b", {}, name), make("span", { className: "note" }, "waiting"));
  row.setAttribute("aria-selected", false);
  return row;
}

function showRow(image) {
  image.row.querySelector(".note").textContent = describe(image);
  image.row.classList.toggle("failed", image.state === "failed");
}

/** Areas of each model and class, beside their colors. */
function showAreas() {
  const blocks = models.map((model, index) => {
    const areas = labelAreas(selected.areas[index], model, thresholds[index]), colors = labelColors(model, index);
    const title = letters[index] ? [make("small", {}, swatch(colors[1]), `${letters[index]}: ${model.name}`)] : [];
    if (model.classes === 1) {
      const mm2 = squareMillimeters(areas[0], selected.scale);
      const rest = areas[0] ? `${formatNumber(areas[0])} pixels${mm2 === null ? "" : ` · ${formatShort(mm2)} mm²`}` : "No lesion found at this threshold.";
      return make("div", { className: "area" }, ...title, make("strong", {}, percent(selected, areas[0])), make("span", {}, rest));
    }
    const rows = areas.map((area, i) => {
      const mm2 = squareMillimeters(area, selected.scale);
      const cells = [`${formatNumber(area)} px`, percent(selected, area), ...(mm2 === null ? [] : [`${formatShort(mm2)} mm²`])];
      return make("tr", {}, make("th", { scope: "row" }, swatch(colors[i + 1]), `class ${i + 1}`), ...cells.map((text) => make("td", {}, text)));
    });
    return make("div", { className: "area" }, ...title, make("table", {}, make("tbody", {}, ...rows)));
  });
  if (models.length > 1) blocks.push(make("div", { className: "area" }, make("small", {}, "Dice of A and B "), make("span", { id: "dice" }, diceText(selected.dice))));
  $("areas").replaceChildren(...blocks);
  $("view").setAttribute("aria-label", `${selected.name}: ${mode()}, ${describe(selected)} of the image`);
}

function diceText(dice) {
  if (!dice) return "…";
  return dice.map((value) => (Number.isNaN(value) ? "both masks are empty" : value.toFixed(4))).join(", ");
}

/** Dice of the two models; only the last of several calls computes it. */
async function compare() {
  if (models.length < 2 || selected.dice) return;
  const turn = ++compared, image = selected;
  await new Promise((resolve) => setTimeout(resolve, 150));
  if (turn !== compared || image.state !== "done") return;
  const used = [...thresholds], dice = await measureDice(image, used);
  if (used.some((value, i) => value !== thresholds[i])) return;
  image.dice = dice;
  if (image === selected) $("dice").textContent = diceText(dice);
}

async function measureDice({ maps, width, height }, used) {
  return (await ask("compare", { maps, width, height, thresholds: used })).dice;
}

// ---- settings

function mode() {
  return document.querySelector("[name=mode]:checked").value;
}

function layer() {
  return $("layer").value.split(" ").map(Number);
}

function showMode() {
  const isProbability = mode() === "probability";
  $("keys").hidden = isProbability;
  $("scale-of-colors").hidden = !isProbability;
  const isMask = mode() === "mask", items = [], [shown] = layer();
  $("ramp").querySelectorAll("i").forEach((mark) => mark.remove());
  if (models[shown].classes === 1) {
    const mark = make("i", { title: `threshold ${thresholds[shown]}` });
    mark.style.left = `${100 * thresholds[shown]}%`;
    $("ramp").append(mark);
  }
  models.forEach((model, index) => {
    const colors = labelColors(model, index).slice(1);
    if (mode() === "image" || (isMask && models.length === 1 && model.classes === 1)) return;
    colors.forEach((color, i) => {
      const parts = [letters[index] && (isMask ? `only ${letters[index]}` : `${letters[index]}: ${model.name}`), model.classes > 1 && !(isMask && letters[index]) && `class ${i + 1}`];
      if (isMask && letters[index] && i > 0) return;
      items.push([isMask && letters[index] ? MODEL_COLORS[index] : color, parts.filter(Boolean).join(", ") || "boundary of the lesion"]);
    });
  });
  if (isMask && models.length > 1) items.push([BOTH, "both"]);
  $("keys").replaceChildren(...items.map(([color, text]) => make("li", {}, swatch(color), text)));
  if (selected?.state === "done") {
    showAreas();
    repaint();
  }
}

function setThreshold(index, value) {
  if (!(value > 0 && value < 1)) return;
  thresholds[index] = value;
  for (const input of document.querySelectorAll(`[data-threshold="${index}"]`)) if (input !== document.activeElement || input.type === "range") input.value = value;
  document.querySelector(`[data-reset="${index}"]`).hidden = value === models[index].threshold;
  for (const image of images) {
    image.dice = null;
    showRow(image);
  }
  showMode();
  if (selected?.state === "done") compare();
}

function makeThreshold(model, index) {
  if (model.classes > 1) return make("p", { className: "field" }, `${letters[index]} Each pixel has the class of its highest probability.`.trim());
  const id = `threshold-${index}`, text = `Threshold${letters[index] && ` of ${letters[index]}`}`;
  const range = make("input", { type: "range", min: 0.01, max: 0.99, step: 0.01, id, value: model.threshold });
  const number = make("input", { type: "number", min: 0.001, max: 0.999, step: 0.001, value: model.threshold, ariaLabel: text });
  for (const input of [range, number]) input.dataset.threshold = index;
  // a grid on which areas are counted
  const set = (input) => setThreshold(index, Math.min(Math.max(Math.round(1000 * input.value), 1), 999) / 1000);
  range.oninput = () => set(range);
  number.oninput = () => number.value !== "" && set(number);
  number.onblur = () => { number.value = thresholds[index]; };
  const reset = make("button", { type: "button", className: "quiet", hidden: true, onclick: () => setThreshold(index, model.threshold) }, `Back to the model's ${model.threshold}`);
  reset.dataset.reset = index;
  return make("div", { className: "field" }, make("label", { htmlFor: id }, ...(letters[index] ? [swatch(MODEL_COLORS[index])] : []), text), make("div", { className: "row" }, range, number), reset);
}

function showScale(pixelsPerMm) {
  const value = pixelsPerMm && ($("unit").value === "mm" ? 1 / pixelsPerMm : pixelsPerMm);
  $("per").value = value ? Number(value.toPrecision(6)) : "";
}

function setScale() {
  const value = $("per").valueAsNumber, isKnown = value > 0 && Number.isFinite(1 / value);
  $("per").setAttribute("aria-invalid", $("per").value !== "" && !isKnown);
  const pixelsPerMm = !isKnown ? null : $("unit").value === "mm" ? 1 / value : value;
  if ($("same").checked) scale = pixelsPerMm;
  for (const image of images) if ($("same").checked || image === selected) image.scale = pixelsPerMm;
  if (selected?.state === "done") showAreas();
}

// ---- downloads

/** Each returns the name of a file and its content; `used` are the thresholds at the click. */
const SAVE = {
  async mask({ name, image, index, used }) {
    return [`${name}${letters[index] && `_${letters[index]}`}_mask.png`, await maskFile(image, index, used)];
  },
  async overlay({ name, image, used }) {
    const layers = models.map((model, index) => ({ index, threshold: used[index], colors: labelColors(model, index) }));
    const { file, maps, width, height } = image;
    return [`${name}_overlay.png`, (await ask("overlay", { file, maps, width, height, layers })).file];
  },
  async polygons({ name, image, used }) {
    return [`${name}_polygons.json`, polygonsFile([[image, await findAll(image, used)]], used)];
  },
  async table({ used }) {
    return ["areas.csv", await tableFile(used)];
  },
  async everything({ names, used }) {
    const done = images.filter(({ state }) => state === "done"), entries = [], found = [];
    for (const image of done) {
      say(`Writing ${found.length + 1} of ${done.length} …`);
      for (const index of models.keys()) {
        entries.push({ name: `masks/${names.get(image)}${letters[index] && `_${letters[index]}`}.png`, file: await maskFile(image, index, used) });
      }
      found.push([image, await findAll(image, used)]);
    }
    entries.push({ name: "polygons.json", file: polygonsFile(found, used) }, { name: "areas.csv", file: await tableFile(used) });
    return ["segmentation.zip", (await ask("zip", { entries })).file];
  },
};

async function maskFile({ maps, width, height }, index, used) {
  const colors = Array.from({ length: 256 }, (_, label) => (label ? CLASS_COLORS[(label - 1) % CLASS_COLORS.length] : BLACK));
  return (await ask("mask", { maps, index, threshold: used[index], width, height, colors })).file;
}

/** Polygons of each model. */
async function findAll({ maps, width, height }, used) {
  const replies = [];
  for (const index of models.keys()) replies.push(await ask("polygons", { maps, index, threshold: used[index], width, height }));
  return replies.map(({ polygons }) => polygons);
}

function polygonsFile(found, used) {
  const some = found.map(([{ name, width, height }, polygons]) => ({ name, width, height, polygons }));
  return new Blob([resultPolygons(some, models, used, page.version)], { type: "application/geo+json" });
}

async function tableFile(used) {
  const rows = [];
  for (const image of images) {
    rows.push({ ...image, dice: models.length > 1 && image.state === "done" ? await measureDice(image, used) : null });
  }
  return new Blob([resultTable(rows, models, used)], { type: "text/csv" });
}

async function save(what, index) {
  const all = resultNames(images), names = new Map(images.map((image, i) => [image, all[i]]));
  const buttons = document.querySelectorAll("#save button");
  for (const button of buttons) button.disabled = true;
  say("Writing …");
  try {
    const [name, file] = await SAVE[what]({ image: selected, name: names.get(selected), names, index, used: [...thresholds] });
    const link = make("a", { href: URL.createObjectURL(file), download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
    say(`${name} is written (${formatNumber(Math.ceil(file.size / 1000))} KB).`);
  } catch (error) {
    say(error.message, true);
  }
  for (const button of buttons) button.disabled = false;
}

// ---- the rest of the page

function make(tag, properties, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function swatch(color) {
  const made = make("span", { className: "swatch" });
  made.style.background = css(color);
  return made;
}

function say(text, isError = false) {
  $("status").textContent = text.slice(0, 1).toUpperCase() + text.slice(1);
  $("status").classList.toggle("error", isError);
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
  const done = images.filter(({ state }) => state === "done").length, failed = images.filter(({ state }) => state === "failed").length;
  const isBusy = done + failed < images.length;
  $("progress").hidden = $("count").hidden = !isBusy;
  Object.assign($("progress"), { max: images.length || 1, value: done + failed });
  $("count").textContent = `${done + failed} of ${images.length}`;
  if (isBusy || !images.length) return;
  const all = `${done} of ${images.length} images are segmented${failed ? `; ${failed} could not be read` : ""}.`;
  say(images.length > 1 ? all : `${images[0].name}: ${describe(images[0])}`, failed > 0);
}

function listen() {
  for (const id of ["files", "camera"]) {
    $(id).onchange = () => {
      if ($(id).files.length) add([...$(id).files]);
      // so that the same file can be chosen again
      $(id).value = "";
    };
  }
  let depth = 0;
  const drag = (change) => document.body.classList.toggle("dragging", (depth = Math.max(depth + change, 0)) > 0);
  addEventListener("dragenter", (event) => { event.preventDefault(); drag(1); });
  addEventListener("dragleave", () => drag(-1));
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => {
    event.preventDefault();
    depth = 0;
    drag(0);
    const [files, folder] = droppedFiles(event.dataTransfer);
    if (files.length || !folder) add(files);
  });
  addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (files.length) add(files);
    else if (!event.target.matches("input")) say("There is no image to be pasted.", true);
  });
  addEventListener("keydown", press);
  $("list").onclick = (event) => {
    const row = event.target.closest("li");
    if (row) select(images.find((image) => image.row === row), true);
  };
  $("modes").onchange = $("layer").onchange = showMode;
  $("per").oninput = $("same").onchange = $("unit").onchange = setScale;
  $("clear").onclick = removeAll;
  $("remove").onclick = () => remove(selected);
  $("save").onclick = (event) => {
    const button = event.target.closest("button");
    if (button) save(button.dataset.save, Number(button.dataset.index ?? 0));
  };
  new ResizeObserver(repaint).observe($("frame"));
}

function press(event) {
  const isInList = $("list").contains(event.target);
  if (event.ctrlKey || event.metaKey || event.altKey || (!isInList && event.target.matches("input, select, textarea"))) return;
  const { key } = event, steps = { ArrowLeft: -1, ArrowRight: 1, ...(isInList && { ArrowUp: -1, ArrowDown: 1, Home: -images.length, End: images.length }) };
  if (key in steps && images.length > 1) {
    event.preventDefault();
    const at = Math.min(Math.max(images.indexOf(selected) + steps[key], 0), images.length - 1);
    select(images[at], isInList);
    if (!isInList) say(`${selected.name}: ${describe(selected)}`, selected.state === "failed");
  } else if (key === "Delete" && isInList) remove(selected);
  else if (MODES[key - 1] && selected) {
    document.querySelector(`[value=${MODES[key - 1]}]`).checked = true;
    showMode();
  }
}

function build() {
  $("use").textContent = page.use;
  $("models").textContent = models.map(({ name }) => name).join(" and ");
  $("thresholds").append(...models.map(makeThreshold));
  $("one").append(
    ...models.map((_, index) => [`Mask ${letters[index]}`.trim() + " (PNG)", "mask", index]).concat([["Overlay (PNG)", "overlay"], ["Polygons (JSON)", "polygons"]]).map(([text, what, index = 0]) => {
      const button = make("button", { type: "button" }, text);
      Object.assign(button.dataset, { save: what, index });
      return button;
    }),
  );
  for (const [index, model] of models.entries()) {
    const labels = model.classes > 1 ? [...Array(model.classes).keys()] : [1];
    $("layer").append(...labels.map((label) => make("option", { value: `${index} ${label}` }, [letters[index] && `model ${letters[index]}`, model.classes > 1 ? `class ${label}` : letters[index] ? "" : "lesion"].filter(Boolean).join(", "))));
    const facts = Object.entries({ ...model.lines, precision: model.half ? "16 bits" : "32 bits" });
    $("facts").append(...(letters[index] ? [make("h2", {}, `Model ${letters[index]}`)] : []), make("dl", {}, ...facts.flatMap(([name, text]) => [make("dt", {}, name), make("dd", {}, text)])));
  }
  $("layer").hidden = $("layer").length < 2;
  const context = $("ramp").firstChild.getContext("2d");
  RAMP.forEach((color, x) => {
    context.fillStyle = css(color);
    context.fillRect(x, 0, 1, 1);
  });
  document.body.classList.add("empty");
  say("");
  showMode();
  listen();
  start();
}

build();
