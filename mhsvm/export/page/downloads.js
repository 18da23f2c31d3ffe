// Files that the page gives to its user.
"use strict";

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
    const done = images.filter(({ state }) => state === "done"),
      entries = [],
      found = [];
    for (const image of done) {
      say(`Writing ${found.length + 1} of ${done.length} …`);
      for (const index of models.keys()) {
        entries.push({
          name: `masks/${names.get(image)}${letters[index] && `_${letters[index]}`}.png`,
          file: await maskFile(image, index, used),
        });
      }
      found.push([image, await findAll(image, used)]);
    }
    entries.push(
      { name: "polygons.json", file: polygonsFile(found, used) },
      { name: "areas.csv", file: await tableFile(used) },
    );
    return ["segmentation.zip", (await ask("zip", { entries })).file];
  },
};

async function maskFile({ maps, width, height }, index, used) {
  const colors = Array.from({ length: 256 }, (_, label) =>
    label ? CLASS_COLORS[(label - 1) % CLASS_COLORS.length] : BLACK,
  );
  return (await ask("mask", { maps, index, threshold: used[index], width, height, colors })).file;
}

/** Polygons of each model. */
async function findAll({ maps, width, height }, used) {
  const replies = [];
  for (const index of models.keys())
    replies.push(await ask("polygons", { maps, index, threshold: used[index], width, height }));
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

async function save(kind, index) {
  const all = resultNames(images),
    names = new Map(images.map((image, i) => [image, all[i]]));
  const buttons = document.querySelectorAll("#save button");
  for (const button of buttons) button.disabled = true;
  say("Writing …");
  try {
    const [name, file] = await SAVE[kind]({
      image: selected,
      name: names.get(selected),
      names,
      index,
      used: [...thresholds],
    });
    const link = make("a", { href: URL.createObjectURL(file), download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
    say(`${name} is written (${formatNumber(Math.ceil(file.size / 1000))} KB).`);
  } catch (error) {
    say(error.message, true);
  }
  for (const button of buttons) button.disabled = false;
}
