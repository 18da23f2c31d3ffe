// Results as texts: areas for people, the table (CSV) and the polygons (GeoJSON). Without DOM.
// A done image: {name, width, height, scale (pixels per mm, or null), areas, dice}; see worker.js for areas.
"use strict";

const COORDINATES = "x to the right and y down in pixels of the image, from the upper left corner of its frame";

/** Pixels of each label from 1 on, at a threshold that is the model's or a multiple of 1/1000. */
function labelAreas(areas, model, threshold) {
  if (model.classes > 1) return areas.classes.slice(1);
  return [threshold === model.threshold ? areas.own : areas.grid[Math.round(threshold * 1000)]];
}

/** Square millimeters; null without a scale. */
function squareMillimeters(area, scale) {
  return scale ? area / scale ** 2 : null;
}

function formatNumber(value, digits = 0) {
  return value.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

/** With three digits, such as 0.0123, 1.20, 123 and 12,345. */
function formatShort(value) {
  if (value >= 100 || value === 0) return formatNumber(value);
  return value < 0.001 ? "< 0.001" : value.toPrecision(3);
}

/** A field of a table: quoted where needed, and never a formula of a spreadsheet. */
function field(value) {
  if (value === null || value === undefined) return "";
  if (typeof value === "number") return Number.isFinite(value) ? String(value) : "";
  const safe = /^[\s"']*[=+\-@\uff1d\uff0b\uff0d\uff20]|^[\t\r\n]/.test(value) ? `'${value}` : value;
  return /[",;\r\n\t]|^\s|\s$/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

/** Rows as CSV: a comma, CRLF, UTF-8; with a mark of UTF-8 only where a spreadsheet needs one. */
function tableText(rows) {
  const text = rows.map((row) => row.map(field).join(",") + "\r\n").join("");
  return /[^\0-\x7f]/.test(text) ? `\ufeff${text}` : text;
}

/** The table of all images: a row for each image, model and class; failed ones with their error. */
function resultTable(images, models, thresholds) {
  const beside = models.length > 1 ? ["dice"] : [];
  const header = [
    "image",
    "width",
    "height",
    "model",
    "sha256",
    "class",
    "threshold",
    "area_px",
    "percent",
    "pixels_per_mm",
    "area_mm2",
    ...beside,
    "error",
  ];
  const rows = images.flatMap((image) => {
    if (image.error) return [[image.name, ...new Array(header.length - 2).fill(null), image.error]];
    return models.flatMap((model, index) =>
      labelAreas(image.areas[index], model, thresholds[index]).map((area, i) => {
        const mm2 = squareMillimeters(area, image.scale);
        return [
          ...[image.name, image.width, image.height, model.name, model.sha256, i + 1],
          ...[
            model.classes > 1 ? null : thresholds[index],
            area,
            Number(((100 * area) / (image.width * image.height)).toFixed(4)),
          ],
          ...[image.scale, mm2 === null ? null : Number(mm2.toPrecision(7))],
          ...(beside.length ? [image.dice?.[image.dice.length > 1 ? i : 0]] : []),
          null,
        ];
      }),
    );
  });
  return tableText([header, ...rows]);
}

/**
 * Polygons of images as GeoJSON, in pixels.
 * @param {{name: string, width: number, height: number, polygons: {label: number, area: number, rings: number[][][]}[][]}[]} images
 *   With polygons of each model.
 */
function resultPolygons(images, models, thresholds, version) {
  const about = (model, index) => ({
    model: model.name,
    sha256: model.sha256,
    threshold: model.classes > 1 ? null : thresholds[index],
  });
  const features = images.flatMap(({ name, width, height, polygons }) =>
    polygons.flatMap((found, index) =>
      found.map(({ label, area, rings }) => ({
        type: "Feature",
        properties: { image: name, width, height, ...about(models[index], index), class: label, area_px: area },
        geometry: { type: "Polygon", coordinates: rings },
      })),
    ),
  );
  const known = images.map(({ name, width, height, polygons }) => ({
    image: name,
    width,
    height,
    polygons: polygons.map((found) => found.length),
  }));
  return JSON.stringify({
    type: "FeatureCollection",
    coordinates: COORDINATES,
    written_by: `mhsvm ${version}`,
    models: models.map(about),
    images: known,
    features,
  });
}

/** Names of files for results: those of the images without ending and without letters that systems refuse, each once. */
function resultNames(images) {
  const taken = new Set();
  return images.map(({ name }) => {
    const stem =
      name
        .replace(/\.[^.]*$/, "")
        .replace(/[\0-\x1f<>:"/\\|?*\x7f]/g, "_")
        .replace(/^[.\s]+|[.\s]+$/g, "")
        .slice(0, 120) || "image";
    let unique = stem;
    for (let i = 2; taken.has(unique.toLowerCase()); i++) unique = `${stem}-${i}`;
    taken.add(unique.toLowerCase());
    return unique;
  });
}
