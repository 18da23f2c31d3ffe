// Masks, their boundaries and their contours.
// A classic script without DOM: its functions are globals of a page, of a Worker, or of a function in node.
// Shape letters: h w size of the image in pixels, k classes.
"use strict";

/**
 * Threshold a probability, or take the class of the highest one.
 * @param {Float32Array} maps (k, h, w)
 * @param {number} classes k; 1 is lesion or background.
 * @param {number} threshold Probability at and above which a pixel is lesion; ignored for several classes.
 * @returns {Uint8Array} (h, w), 1 is lesion, or class indices; the first one of equal classes.
 */
function toMask(maps, classes, threshold) {
  const num = maps.length / classes, mask = new Uint8Array(num);
  if (classes === 1) {
    // torch compares in float32
    const level = Math.fround(threshold);
    for (let i = 0; i < num; i++) mask[i] = maps[i] >= level ? 1 : 0;
    return mask;
  }
  const best = maps.slice(0, num);
  for (let k = 1; k < classes; k++) {
    for (let i = 0, j = k * num; i < num; i++, j++) {
      if (maps[j] > best[i]) {
        best[i] = maps[j];
        mask[i] = k;
      }
    }
  }
  return mask;
}

/**
 * Count the pixels of a class.
 * @param {Uint8Array} mask (h, w)
 * @param {number} [label]
 * @returns {number} Area in pixels.
 */
function countPixels(mask, label = 1) {
  let num = 0;
  for (let i = 0; i < mask.length; i++) num += mask[i] === label ? 1 : 0;
  return num;
}

/**
 * The pixels of a class that are near its boundary, or near the border of the image.
 * @param {Uint8Array} mask (h, w)
 * @param {number} width w
 * @param {number} height h
 * @param {number} [thickness] Pixels within this distance, in rows and columns, of a pixel outside.
 * @param {number} [label]
 * @returns {Uint8Array} (h, w), 1 at the boundary.
 */
function maskBoundary(mask, width, height, thickness = 1, label = 1) {
  const inside = mask.map((value) => (value === label ? 1 : 0));
  // a pixel is away from the boundary if the whole square around it is inside
  const rows = new Uint8Array(mask.length), boundary = new Uint8Array(mask.length);
  for (let y = 0; y < height; y++) erodeLine(inside, rows, y * width, 1, width, thickness);
  for (let x = 0; x < width; x++) erodeLine(rows, boundary, x, width, height, thickness);
  for (let i = 0; i < boundary.length; i++) boundary[i] = inside[i] && !boundary[i] ? 1 : 0;
  return boundary;
}

/** Along one row or column: 1 where all values within `reach` are 1; outside the image they are 0. */
function erodeLine(from, to, start, step, length, reach) {
  let run = 0;
  for (let i = 0, at = start; i < length; i++, at += step) {
    run = from[at] ? run + 1 : 0;
    if (run > 2 * reach) to[at - reach * step] = 1;
  }
}

/**
 * Contours of a class along the edges of its pixels.
 *
 * Coordinates are x to the right and y down, in pixels: (0, 0) is the upper left corner of the image, (0.5, 0.5) the center
 * of its first pixel. Regions are connected by edges, not by corners. Areas are exact: the sum over all polygons is
 * the number of the class's pixels.
 *
 * @param {Uint8Array} mask (h, w)
 * @param {number} width w
 * @param {number} height h
 * @param {number} [label]
 * @returns {{outer: [number, number][], holes: [number, number][][], area: number}[]} The largest first. Contours are
 *   closed: the last point is the first. Outer ones run clockwise on the screen, holes counterclockwise.
 */
function findPolygons(mask, width, height, label = 1) {
  if (mask.length !== width * height) {
    throw new Error(`a mask of ${width} x ${height} has that many pixels; received ${mask.length}`);
  }
  const isInside = (x, y) => x >= 0 && y >= 0 && x < width && y < height && mask[y * width + x] === label;
  const regions = labelRegions(mask, width, height, label);
  // every contour has an edge with a pixel of the class below it
  const visited = new Uint8Array(mask.length);
  const polygons = new Map();
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++, i++) {
      if (visited[i] || mask[i] !== label || isInside(x, y - 1)) continue;
      const contour = followContour(isInside, width, x, y, visited), area = signedArea(contour);
      const polygon = polygons.get(regions[i]);
      // from top to bottom, a region's outer contour is the first
      if (polygon === undefined) polygons.set(regions[i], { outer: contour, holes: [], area });
      else {
        polygon.holes.push(contour);
        polygon.area += area;
      }
    }
  }
  return [...polygons.values()].sort((a, b) => b.area - a.area);
}

/** One contour, with the class on its right, from the upper edge of pixel (x, y). */
function followContour(isInside, width, x, y, visited) {
  const points = [[x, y]], startX = x, startY = y;
  let dx = 1, dy = 0;
  do {
    // the upper edge of the pixel below
    if (dx === 1) visited[y * width + x] = 1;
    x += dx;
    y += dy;
    // the two pixels ahead; (x, y) is the corner between them
    const left = isInside(x + (dx + dy - 1) / 2, y + (dy - dx - 1) / 2);
    const right = isInside(x + (dx - dy - 1) / 2, y + (dx + dy - 1) / 2);
    if (right && !left) continue;
    points.push([x, y]);
    // to the right also where regions touch at a corner
    [dx, dy] = right ? [dy, -dx] : [-dy, dx];
  } while (x !== startX || y !== startY || dx !== 1);
  return points;
}

/** The area within a closed contour in pixels; negative for a hole. */
function signedArea(contour) {
  let twice = 0;
  for (let i = 1; i < contour.length; i++) {
    twice += contour[i - 1][0] * contour[i][1] - contour[i][0] * contour[i - 1][1];
  }
  return twice / 2;
}

/** Regions of a class that are connected by edges: Int32Array (h, w), equal numbers in a region. */
function labelRegions(mask, width, height, label) {
  const parents = new Int32Array(mask.length);
  const root = (i) => {
    while (parents[i] !== i) i = parents[i] = parents[parents[i]];
    return i;
  };
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++, i++) {
      if (mask[i] !== label) continue;
      const left = x > 0 && mask[i - 1] === label, up = y > 0 && mask[i - width] === label;
      parents[i] = left ? root(i - 1) : up ? root(i - width) : i;
      if (left && up) {
        const a = parents[i], b = root(i - width);
        parents[Math.max(a, b)] = Math.min(a, b);
        parents[i] = Math.min(a, b);
      }
    }
  }
  for (let i = 0; i < mask.length; i++) if (mask[i] === label) parents[i] = root(i);
  return parents;
}
