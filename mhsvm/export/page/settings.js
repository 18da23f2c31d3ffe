// The settings of the page: the view, thresholds, and the scale.
"use strict";

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
  const isMask = mode() === "mask",
    items = [],
    [shown] = layer();
  $("ramp")
    .querySelectorAll("i")
    .forEach((mark) => mark.remove());
  if (models[shown].classes === 1) {
    const mark = make("i", { title: `threshold ${thresholds[shown]}` });
    mark.style.left = `${100 * thresholds[shown]}%`;
    $("ramp").append(mark);
  }
  models.forEach((model, index) => {
    const colors = labelColors(model, index).slice(1);
    if (mode() === "image" || (isMask && models.length === 1 && model.classes === 1)) return;
    colors.forEach((color, i) => {
      const parts = [
        letters[index] && (isMask ? `only ${letters[index]}` : `${letters[index]}: ${model.name}`),
        model.classes > 1 && !(isMask && letters[index]) && `class ${i + 1}`,
      ];
      if (isMask && letters[index] && i > 0) return;
      items.push([
        isMask && letters[index] ? MODEL_COLORS[index] : color,
        parts.filter(Boolean).join(", ") || "boundary of the lesion",
      ]);
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
  for (const input of document.querySelectorAll(`[data-threshold="${index}"]`))
    if (input !== document.activeElement || input.type === "range") input.value = value;
  document.querySelector(`[data-reset="${index}"]`).hidden = value === models[index].threshold;
  for (const image of images) {
    image.dice = null;
    showRow(image);
  }
  showMode();
  if (selected?.state === "done") compare();
}

function makeThreshold(model, index) {
  if (model.classes > 1)
    return make(
      "p",
      { className: "field" },
      `${letters[index]} Each pixel has the class of its highest probability.`.trim(),
    );
  const id = `threshold-${index}`,
    text = `Threshold${letters[index] && ` of ${letters[index]}`}`;
  const range = make("input", { type: "range", min: 0.01, max: 0.99, step: 0.01, id, value: model.threshold });
  const number = make("input", {
    type: "number",
    min: 0.001,
    max: 0.999,
    step: 0.001,
    value: model.threshold,
    ariaLabel: text,
  });
  for (const input of [range, number]) input.dataset.threshold = index;
  // a grid on which areas are counted
  const set = (input) => setThreshold(index, Math.min(Math.max(Math.round(1000 * input.value), 1), 999) / 1000);
  range.oninput = () => set(range);
  number.oninput = () => number.value !== "" && set(number);
  number.onblur = () => {
    number.value = thresholds[index];
  };
  const goBack = () => {
    setThreshold(index, model.threshold);
    range.focus();
  };
  const reset = make(
    "button",
    { type: "button", className: "quiet", hidden: true, onclick: goBack },
    `Back to the model's ${model.threshold}`,
  );
  reset.dataset.reset = index;
  return make(
    "div",
    { className: "field" },
    make("label", { htmlFor: id }, ...(letters[index] ? [swatch(MODEL_COLORS[index])] : []), text),
    make("div", { className: "row" }, range, number),
    reset,
  );
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
  const at = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height].map((value) =>
    Math.min(Math.max(value, 0), 1),
  );
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
  const {
    image: { width, height },
    from,
    to,
  } = line;
  const pixels = Math.hypot((to[0] - from[0]) * width, (to[1] - from[1]) * height);
  if (!pixels) return;
  $("unit").value = "pixels";
  $("per").value = Number((pixels / mm).toPrecision(4));
  setScale();
}

function setScale() {
  const value = $("per").valueAsNumber,
    isKnown = value > 0 && Number.isFinite(1 / value);
  $("per").setAttribute("aria-invalid", $("per").value !== "" && !isKnown);
  const pixelsPerMm = !isKnown ? null : $("unit").value === "mm" ? 1 / value : value;
  if ($("same").checked) scale = pixelsPerMm;
  for (const image of images) if ($("same").checked || image === selected) image.scale = pixelsPerMm;
  if (selected?.state === "done") showAreas();
}
