"use strict";
const { gallery, gates } = JSON.parse(document.getElementById("payload").textContent);
const [HEIGHT, WIDTH] = gallery.size;
const cases = gallery.cases;
const severalClasses = gallery.numClasses > 1;
const byId = (id) => document.getElementById(id);

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function fillSelect(select, labels) {
  select.append(...labels.map((label, value) => element("option", { value, textContent: label })));
}

/* Images: decoded when they are drawn; masks and overlays are made from them. */

async function pixelsOf(url) {
  const image = new Image();
  image.src = url;
  await image.decode();
  const canvas = element("canvas", { width: image.naturalWidth, height: image.naturalHeight });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  return context.getImageData(0, 0, canvas.width, canvas.height).data;
}

// labels of an image that holds them in its red channel
const labelsOf = (pixels, label) => Uint8Array.from({ length: WIDTH * HEIGHT }, (_, i) => label(pixels[4 * i]));
const targetOf = async (shown) =>
  labelsOf(await pixelsOf(shown.target), severalClasses ? (value) => value : (value) => (value ? 1 : 0));
const predictionOf = async (shown) =>
  severalClasses
    ? labelsOf(await pixelsOf(shown.prediction), (value) => value)
    : labelsOf(await pixelsOf(shown.probability), (value) => (value >= gallery.threshold ? 1 : 0));

const NOT_COUNTED = 255;
const colorOf = (label) =>
  severalClasses ? gallery.classes.slice(3 * label, 3 * label + 3) : label ? [255, 255, 255] : [0, 0, 0];

function paint(pixels, i, color, weight = 1) {
  for (let c = 0; c < 3; c++) pixels[4 * i + c] = (1 - weight) * pixels[4 * i + c] + weight * color[c];
}

function isBoundary(labels, x, y, reach) {
  const own = labels[y * WIDTH + x];
  if (!own || own === NOT_COUNTED) return false;
  for (let dy = -reach; dy <= reach; dy++) {
    for (let dx = -reach; dx <= reach; dx++) {
      const [i, j] = [x + dx, y + dy];
      if (i < 0 || j < 0 || i >= WIDTH || j >= HEIGHT || labels[j * WIDTH + i] !== own) return true;
    }
  }
  return false;
}

function paintBoundary(pixels, labels, color, reach) {
  for (let y = 0; y < HEIGHT; y++) {
    for (let x = 0; x < WIDTH; x++) if (isBoundary(labels, x, y, reach)) paint(pixels, y * WIDTH + x, color);
  }
}

function paintLabels(pixels, labels) {
  labels.forEach((label, i) => paint(pixels, i, colorOf(label)));
  return pixels;
}

function paintErrors(pixels, target, prediction) {
  const { target: missed, added } = gallery.colors;
  for (let i = 0; i < WIDTH * HEIGHT; i++) {
    const gray = 0.3 * pixels[4 * i] + 0.59 * pixels[4 * i + 1] + 0.11 * pixels[4 * i + 2];
    paint(pixels, i, [gray, gray, gray]);
    if (target[i] === prediction[i] || target[i] === NOT_COUNTED) continue;
    paint(pixels, i, prediction[i] ? added : missed, 0.65);
  }
  return pixels;
}

function paintRamp(pixels, ramp) {
  for (let i = 0; i < pixels.length / 4; i++) {
    const level = pixels[4 * i];
    paint(pixels, i, ramp.slice(3 * level, 3 * level + 3));
  }
  return pixels;
}

const { target, prediction, added } = gallery.colors;
const masks = severalClasses
  ? Array.from({ length: gallery.numClasses - 1 }, (_, i) => [`class ${i + 1}`, colorOf(i + 1)])
  : [["lesion", colorOf(1)]];
const VIEWS = [
  {
    name: "boundaries",
    legend: [["ground truth", target], ["prediction", prediction]],
    draw: async (shown) => {
      const pixels = await pixelsOf(shown.image);
      // a thin line over a broad one: both stay visible where they coincide
      paintBoundary(pixels, await targetOf(shown), target, 2);
      paintBoundary(pixels, await predictionOf(shown), prediction, 1);
      return pixels;
    },
  },
  { name: "image", legend: [], draw: (shown) => pixelsOf(shown.image) },
  {
    name: "ground truth",
    legend: masks,
    draw: async (shown) => paintLabels(await pixelsOf(shown.image), await targetOf(shown)),
  },
  {
    name: "prediction",
    legend: masks,
    draw: async (shown) => paintLabels(await pixelsOf(shown.image), await predictionOf(shown)),
  },
  {
    name: "probability",
    ramp: gallery.ramp,
    legend: [],
    draw: async (shown) => paintRamp(await pixelsOf(shown.probability), gallery.ramp),
  },
  {
    name: "errors",
    legend: severalClasses
      ? [["background instead of a class", target], ["another class", added]]
      : [["missed", target], ["added", added]],
    draw: async (shown) =>
      paintErrors(await pixelsOf(shown.image), await targetOf(shown), await predictionOf(shown)),
  },
];

async function drawCase(canvas, shown, view) {
  const requested = `${shown.id} ${view.name}`;
  canvas.dataset.requested = requested;
  canvas.setAttribute("aria-label", `${view.name} of ${shown.id}`);
  const pixels = await view.draw(shown);
  // another image may have been requested in the meantime
  if (canvas.dataset.requested === requested) put(canvas, pixels, WIDTH, HEIGHT);
}

function put(canvas, pixels, width, height) {
  canvas.width = width;
  canvas.height = height;
  canvas.getContext("2d").putImageData(new ImageData(pixels, width, height), 0, 0);
}

function makeCanvas() {
  const canvas = element("canvas", { width: WIDTH, height: HEIGHT });
  canvas.setAttribute("role", "img");
  return canvas;
}

function legendOf(view) {
  const entries = view.legend.map(([label, color]) => {
    const entry = element("span", { textContent: label });
    entry.style.setProperty("--color", `rgb(${color})`);
    return entry;
  });
  return view.ramp ? [rampEntry(view.ramp, "0 to 1")] : entries;
}

function rampEntry(ramp, label) {
  const entry = element("span", { className: "ramp", textContent: label });
  const stops = [0, 64, 128, 192, 255].map((level) => `rgb(${ramp.slice(3 * level, 3 * level + 3)})`);
  entry.style.setProperty("--color", `linear-gradient(90deg, ${stops})`);
  return entry;
}

/* The gallery. */

const format = (value) => (value === null || value === undefined ? "-" : value.toFixed(value < 10 ? 4 : 2));
const measured = "hd95" in cases[0];
const dsc = (shown) => `dsc ${format(shown.dice)}`;
const hd95 = (shown) => `hd95 ${format(shown.hd95)} px`;
const lesion = (shown) => `lesion ${(100 * shown.lesionFraction).toFixed(1)} %`;
// name, comparison and the score that cards show; cases without a distance come last
const ORDERS = [
  ["worst dsc first", (a, b) => a.dice - b.dice, dsc],
  ["best dsc first", (a, b) => b.dice - a.dice, dsc],
  ...(measured ? [["largest hd95 first", (a, b) => (b.hd95 ?? -1) - (a.hd95 ?? -1), hd95]] : []),
  ["largest lesion first", (a, b) => b.lesionFraction - a.lesionFraction, lesion],
  ["smallest lesion first", (a, b) => a.lesionFraction - b.lesionFraction, lesion],
  ["by id", (a, b) => (a.id < b.id ? -1 : 1), dsc],
];

let listed = [];
const cards = cases.map((shown, row) => {
  const canvas = makeCanvas();
  const id = element("i", { textContent: shown.id, title: shown.id });
  const caption = element("span", {}, id, element("b"));
  const card = element("button", { type: "button" }, canvas, caption);
  card.addEventListener("click", () => openCase(row));
  return card;
});
const rowOf = new Map(cards.map((card, row) => [card, row]));
const onScreen = new Set();
const observer = new IntersectionObserver(
  (entries) =>
    entries.forEach(({ target, isIntersecting }) => {
      if (!isIntersecting) return onScreen.delete(target);
      onScreen.add(target);
      drawCard(target);
    }),
  { rootMargin: "300px" },
);
cards.forEach((card) => observer.observe(card));

const chosenView = () => VIEWS[byId("view").value];

function drawCard(card) {
  const requested = `${cases[rowOf.get(card)].id} ${chosenView().name}`;
  const canvas = card.firstChild;
  if (canvas.dataset.requested !== requested) drawCase(canvas, cases[rowOf.get(card)], chosenView());
}

function listCases() {
  const { rows } = byId("filter").value === "all" ? { rows: null } : gallery.filters[byId("filter").value];
  const within = rows && new Set(rows);
  const part = byId("search").value.trim().toLowerCase();
  const [, compare, scoreOf] = ORDERS[byId("order").value];
  listed = cases
    .map((_, row) => row)
    .filter((row) => (!within || within.has(row)) && cases[row].id.toLowerCase().includes(part))
    .sort((a, b) => compare(cases[a], cases[b]) || a - b);
  listed.forEach((row) => {
    const score = scoreOf(cases[row]);
    cards[row].querySelector("b").textContent = score;
    cards[row].setAttribute("aria-label", `${cases[row].id}, ${score}: open`);
  });
  byId("cards").replaceChildren(...listed.map((row) => cards[row]));
  byId("count").textContent = `${listed.length} of ${cases.length} images`;
  choosePrint();
}

function showView() {
  byId("legend").replaceChildren(...legendOf(chosenView()));
  onScreen.forEach(drawCard);
  choosePrint();
}

// cards are drawn when they come on the screen: a print needs all of them
function choosePrint() {
  document.body.classList.toggle("print-cases", byId("print-cases").checked);
  if (byId("print-cases").checked) listed.forEach((row) => drawCard(cards[row]));
}

function fillFilters() {
  const groups = new Map();
  gallery.filters.forEach(({ title, label, rows }, place) => {
    if (!groups.has(title)) groups.set(title, element("optgroup", { label: title }));
    groups.get(title).append(element("option", { value: place, textContent: `${label} (${rows.length})` }));
  });
  byId("filter").append(element("option", { value: "all", textContent: "all" }), ...groups.values());
}

fillSelect(byId("view"), VIEWS.map(({ name }) => name));
fillSelect(byId("order"), ORDERS.map(([name]) => name));
fillFilters();
byId("view").addEventListener("change", showView);
["order", "filter", "search"].forEach((id) => byId(id).addEventListener("input", listCases));
document.querySelectorAll("form").forEach((form) => form.addEventListener("submit", (event) => event.preventDefault()));
byId("print-cases").addEventListener("change", choosePrint);
listCases();
showView();

/* One case, in all views. */

const dialog = byId("case");
const panels = VIEWS.map((view) => {
  const canvas = makeCanvas();
  const legend = element("span", { className: "legend" }, ...legendOf(view));
  byId("panels").append(element("figure", {}, canvas, element("figcaption", {}, view.name, legend)));
  return canvas;
});
let opened = 0;

function openCase(row) {
  opened = row;
  const shown = cases[row];
  byId("case-title").textContent = shown.id;
  byId("case-metrics").textContent = [
    dsc(shown),
    `miou ${format(shown.jaccard)}`,
    ...(measured ? [hd95(shown)] : []),
    `${lesion(shown)} of the image`,
    `${listed.indexOf(row) + 1} of ${listed.length}`,
  ].join(", ");
  panels.forEach((canvas, place) => drawCase(canvas, shown, VIEWS[place]));
  if (!dialog.open) dialog.showModal();
}

function step(by) {
  const place = listed.indexOf(opened) + by;
  if (place >= 0 && place < listed.length) openCase(listed[place]);
}

byId("previous").addEventListener("click", () => step(-1));
byId("next").addEventListener("click", () => step(1));
byId("close").addEventListener("click", () => dialog.close());
dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
dialog.addEventListener("keydown", (event) => {
  const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (by) {
    event.preventDefault();
    step(by);
  }
});
// the arrow keys may have moved on: the focus returns to the last case
dialog.addEventListener("close", () => cards[opened].focus());

/* Gates of MHS-VM. */

const percent = (fraction) => (fraction === null ? "-" : `${(100 * fraction).toFixed(1)} %`);

async function drawGate(canvas, url) {
  canvas.dataset.requested = url;
  const image = new Image();
  image.src = url;
  await image.decode();
  const pixels = await pixelsOf(url);
  if (canvas.dataset.requested === url) {
    put(canvas, paintRamp(pixels, gallery.ramp), image.naturalWidth, image.naturalHeight);
  }
}

function showGates() {
  const { id, blocks } = gates.images[byId("gate-image").value];
  const block = blocks[byId("gate-block").value];
  const withBoundaries = makeCanvas();
  drawCase(withBoundaries, cases.find((shown) => shown.id === id), VIEWS[0]);
  const heads = gates.patterns.map((pattern, head) => {
    const canvas = makeCanvas();
    canvas.className = "map";
    canvas.setAttribute("aria-label", `gate of head ${head + 1}, pattern ${pattern}`);
    drawGate(canvas, block.maps[head]);
    const lines = [
      `mean ${format(block.means[head])}, closed ${percent(block.closed[head])}`,
      `routes ${block.routeFractions[head].map(percent).join(", ")}`,
    ].map((line) => element("div", { textContent: line }));
    const title = element("b", { textContent: `head ${head + 1}, pattern ${pattern}` });
    return element("figure", {}, canvas, element("figcaption", {}, title, ...lines));
  });
  const caption = element("figcaption", {}, element("b", { textContent: id }));
  byId("heads").replaceChildren(element("figure", {}, withBoundaries, caption), ...heads);
  byId("gate-scale").replaceChildren(rampEntry(gallery.ramp, `gate ${gates.gate}, 0 to ${format(block.highest)}`));
}

if (gates) {
  fillSelect(byId("gate-image"), gates.images.map(({ id }) => id));
  fillSelect(byId("gate-block"), gates.blocks);
  ["gate-image", "gate-block"].forEach((id) => byId(id).addEventListener("change", showGates));
  showGates();
}
