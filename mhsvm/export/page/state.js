// The state of the page, and small parts that its other scripts use.
"use strict";

const THUMBNAIL = 128; // pixels
const KEPT_VIEWS = 4;
// pixels of a view
const LIMIT = Math.min(Math.max(Math.ceil(Math.max(screen.width, screen.height) * devicePixelRatio), 800), 1600);
const MODES = ["boundary", "mask", "probability", "image"];

const $ = (id) => document.getElementById(id);
const page = JSON.parse($("data").textContent),
  { models } = page;
// letters where there are two models
const letters = models.length > 1 ? ["A", "B"] : [""];

const images = []; // {id, file, name, state, error, width, height, maps, areas, dice, scale, row}
const thresholds = models.map((model) => model.threshold);
const views = new Map(); // by id, the last ones that were shown
let line = null; // a known length in an image: {image, from, to}, in fractions of its sides
let selected = null,
  scale = null,
  ready = false,
  broken = "",
  numAdded = 0,
  compared = 0;

const waiting = new Map(); // questions to the Worker by id
let worker,
  stopped = null;

async function openWorker() {
  const parts = [$("modules").textContent, await unpack(page.worker)];
  worker = new Worker(URL.createObjectURL(new Blob(parts, { type: "text/javascript" })));
  worker.onmessage = ({ data: { type, id, message, ...reply } }) => {
    const question = waiting.get(id);
    waiting.delete(id);
    if (type === "error") question?.reject(new Error(message));
    else question?.resolve(reply);
  };
  worker.onerror = (event) => {
    event.preventDefault();
    stopped = new Error("The computation stopped, perhaps for lack of memory. Load this page again.");
    for (const { reject } of waiting.values()) reject(stopped);
    waiting.clear();
  };
}

/** The Worker's answer, see ANSWERS in worker.js; rejected with an Error whose message is for the user. */
function ask(type, message) {
  if (stopped) return Promise.reject(stopped);
  return new Promise((resolve, reject) => {
    const id = (ask.last = (ask.last ?? 0) + 1);
    waiting.set(id, { resolve, reject });
    worker.postMessage({ type, id, ...message });
  });
}

/** An element. */
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
  $("status").textContent = sentence(text);
  $("status").classList.toggle("error", isError);
}

function sentence(text) {
  return text.slice(0, 1).toUpperCase() + text.slice(1);
}
