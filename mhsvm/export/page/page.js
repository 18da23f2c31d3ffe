// The start of the page, and its answers to its user.
"use strict";

async function start() {
  try {
    await openWorker();
    const { exact } = await ask("open", await unpackModels(page));
    // for as long as the page is open
    $("warning").hidden = exact;
    if (!exact)
      $("warning").textContent =
        "This browser changes pixels that a page reads, against fingerprinting: results are not exact. Allow canvas data for this page.";
    ready = true;
    work();
  } catch (error) {
    broken = sentence(error.message);
    say(broken, true);
    showSelected();
  }
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
  addEventListener("dragenter", (event) => {
    event.preventDefault();
    drag(1);
  });
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
    else if (!event.target.matches?.("input")) say("There is no image to be pasted.", true);
  });
  addEventListener("keydown", press);
  $("list").onclick = (event) => {
    const row = event.target.closest("li");
    if (row)
      select(
        images.find((image) => image.row === row),
        true,
      );
  };
  $("modes").onchange = $("layer").onchange = showMode;
  $("per").oninput = $("same").onchange = $("unit").onchange = setScale;
  $("clear").onclick = removeAll;
  $("remove").onclick = () => remove(selected);
  $("save").onclick = (event) => {
    const button = event.target.closest("button");
    if (button) save(button.dataset.save, Number(button.dataset.index ?? 0));
  };
  $("measure").onclick = () => setMeasuring($("measure").getAttribute("aria-pressed") !== "true");
  $("mm").oninput = useLength;
  $("view").onpointerdown = $("view").onpointermove = dragLine;
  new ResizeObserver(repaint).observe($("frame"));
}

function press(event) {
  const isInList = $("list").contains(event.target);
  if (
    event.ctrlKey ||
    event.metaKey ||
    event.altKey ||
    (!isInList && event.target.matches?.("input, select, textarea"))
  )
    return;
  const { key } = event,
    steps = {
      ArrowLeft: -1,
      ArrowRight: 1,
      ...(isInList && { ArrowUp: -1, ArrowDown: 1, Home: -images.length, End: images.length }),
    };
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
    ...models
      .map((_, index) => [`Mask ${letters[index]}`.trim() + " (PNG)", "mask", index])
      .concat([
        ["Overlay (PNG)", "overlay"],
        ["Polygons (JSON)", "polygons"],
      ])
      .map(([text, kind, index = 0]) => {
        const button = make("button", { type: "button" }, text);
        Object.assign(button.dataset, { save: kind, index });
        return button;
      }),
  );
  for (const [index, model] of models.entries()) {
    const labels = model.classes > 1 ? [...Array(model.classes).keys()] : [1];
    $("layer").append(
      ...labels.map((label) =>
        make(
          "option",
          { value: `${index} ${label}` },
          [
            letters[index] && `model ${letters[index]}`,
            model.classes > 1 ? `class ${label}` : letters[index] ? "" : "lesion",
          ]
            .filter(Boolean)
            .join(", "),
        ),
      ),
    );
    const facts = Object.entries(model.lines);
    $("facts").append(
      ...(letters[index] ? [make("h2", {}, `Model ${letters[index]}`)] : []),
      make("dl", {}, ...facts.flatMap(([name, text]) => [make("dt", {}, name), make("dd", {}, text)])),
    );
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
