// The image that is shown: its view, its areas and its settings.
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
  const { name, state, error, width, height, ms, scale } = selected,
    isDone = state === "done";
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
  paint($("view"), view, {
    models,
    thresholds,
    mode: mode(),
    layer: layer(),
    line: line?.image === image ? line : null,
  });
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
    const areas = labelAreas(selected.areas[index], model, thresholds[index]),
      colors = labelColors(model, index);
    const title = letters[index] ? [make("small", {}, swatch(colors[1]), `${letters[index]}: ${model.name}`)] : [];
    if (model.classes === 1) {
      const mm2 = squareMillimeters(areas[0], selected.scale);
      const rest = areas[0]
        ? `${formatNumber(areas[0])} pixels${mm2 === null ? "" : ` · ${formatShort(mm2)} mm²`}`
        : "No lesion found at this threshold.";
      return make(
        "div",
        { className: "area" },
        ...title,
        make("strong", {}, percent(selected, areas[0])),
        make("span", {}, rest),
      );
    }
    const rows = areas.map((area, i) => {
      const mm2 = squareMillimeters(area, selected.scale);
      const cells = [
        `${formatNumber(area)} px`,
        percent(selected, area),
        ...(mm2 === null ? [] : [`${formatShort(mm2)} mm²`]),
      ];
      return make(
        "tr",
        {},
        make("th", { scope: "row" }, swatch(colors[i + 1]), `class ${i + 1}`),
        ...cells.map((text) => make("td", {}, text)),
      );
    });
    return make("div", { className: "area" }, ...title, make("table", {}, make("tbody", {}, ...rows)));
  });
  if (models.length > 1)
    blocks.push(
      make(
        "div",
        { className: "area" },
        make("small", {}, "Dice of A and B "),
        make("span", { id: "dice" }, diceText(selected.dice)),
      ),
    );
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
  const turn = ++compared,
    image = selected;
  await new Promise((resolve) => setTimeout(resolve, 150));
  if (turn !== compared || image.state !== "done") return;
  const used = [...thresholds],
    dice = await measureDice(image, used);
  if (used.some((value, i) => value !== thresholds[i])) return;
  image.dice = dice;
  if (image === selected) $("dice").textContent = diceText(dice);
}

async function measureDice({ maps, width, height }, used) {
  return (await ask("compare", { maps, width, height, thresholds: used })).dice;
}
