// The image that is shown: its view, its areas and what its user sets.
"use strict";

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
  if (line && line.image !== selected) setMeasuring(false);
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
  paint($("view"), view, { models, thresholds, mode: mode(), layer: layer(), line: line?.image === image ? line : null });
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

// ---- areas

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

/** Let the user drag a line of known length on the image, such as a part of a ruler. */
function setMeasuring(isOn) {
  $("measure").setAttribute("aria-pressed", isOn);
  $("view").classList.toggle("measuring", isOn);
  if (!isOn) line = null;
  else say("Drag along a length in the image that you know, such as a part of a ruler.");
  $("length").hidden = !line;
  repaint();
}

function dragLine(event) {
  if ($("measure").getAttribute("aria-pressed") !== "true" || event.buttons === 0) return;
  const box = $("view").getBoundingClientRect();
  const at = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height].map((value) => Math.min(Math.max(value, 0), 1));
  if (event.type === "pointerdown") {
    $("view").setPointerCapture(event.pointerId);
    line = { image: selected, from: at, to: at };
  } else if (line) line.to = at;
  $("length").hidden = !line;
  useLength();
  repaint();
}

/** The scale from the line and its length. */
function useLength() {
  const mm = $("mm").valueAsNumber;
  if (!line || !(mm > 0)) return;
  const { image: { width, height }, from, to } = line;
  const pixels = Math.hypot((to[0] - from[0]) * width, (to[1] - from[1]) * height);
  if (!pixels) return;
  $("unit").value = "pixels";
  $("per").value = Number((pixels / mm).toPrecision(4));
  setScale();
}

function setScale() {
  const value = $("per").valueAsNumber, isKnown = value > 0 && Number.isFinite(1 / value);
  $("per").setAttribute("aria-invalid", $("per").value !== "" && !isKnown);
  const pixelsPerMm = !isKnown ? null : $("unit").value === "mm" ? 1 / value : value;
  if ($("same").checked) scale = pixelsPerMm;
  for (const image of images) if ($("same").checked || image === selected) image.scale = pixelsPerMm;
  if (selected?.state === "done") showAreas();
}
