// The networks run here, beside the page, so that the page stays awake. Messages in: load, photo, answer, map, hideRace.
// The middle three carry the number of the photo that they are about; once a newer one was posted, they are refused, and
// so are maps of race once it was hidden.

import * as ort from "./ort.wasm.bundle.min.mjs";
import { answerCrop, occlusionMap } from "./answers.js";
import config from "./config.js";
import { cutOut, findFaces, middleSquare, placeCrop } from "./detect.js";
import { fromRgba } from "./pixels.js";

let model, detector;
let latest = 0; // number of the newest photo
let hidden = 0; // id of the message with which race was last hidden
let crops = []; // of this photo: {pixels, side}

class Failure extends Error {
  constructor(code, detail = "") {
    super(detail);
    this.code = code;
  }
}

/** A session of a network, if the file is the very one that the page was built with. */
async function open({ file, sha256 }) {
  let content;
  try {
    const response = await fetch(new URL(file, import.meta.url));
    if (!response.ok) throw new Error(`HTTP ${response.status}`);
    content = await response.arrayBuffer();
  } catch (error) {
    throw new Failure("fileMissing", `${file}: ${error.message}`);
  }
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", content));
  if (Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("") !== sha256) {
    throw new Failure("modelCorrupt", file);
  }
  try {
    return await ort.InferenceSession.create(content, { executionProviders: ["wasm"] });
  } catch (error) {
    throw new Failure("notStarted", error.message); // not the browser's fault: app.js looked at what it can do
  }
}

async function load() {
  if (!self.isSecureContext) throw new Failure("insecure");
  ort.env.wasm.wasmPaths = { wasm: new URL("ort-wasm-simd-threaded.wasm", import.meta.url).href };
  ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(4, navigator.hardwareConcurrency || 1) : 1;
  model = await open(config.model);
  detector = await open(config.detector);
  await run(new Uint8Array(3 * config.about.image_size ** 2), 1, ["age_mean"]); // the first run is slow: not the user's
  return { threads: ort.env.wasm.numThreads };
}

async function run(data, count, names) {
  const size = config.about.image_size;
  const outputs = await model.run({ image: new ort.Tensor("uint8", data, [count, size, size, 3]) }, names);
  return Object.fromEntries(names.map((name) => [name, outputs[name].data]));
}

async function search({ width, height, data }) {
  const outputs = await detector.run({ image: new ort.Tensor("uint8", data, [1, height, width, 3]) });
  return detector.outputNames.map((name) => outputs[name].data);
}

/**
 * Faces of a photo, or its middle square as the only one. Where the photo was made smaller, `enlarge` takes lengths
 * across and down back to those of the file.
 */
async function photo({ width, height, rgba, enlarge, whole }) {
  const started = performance.now();
  const image = fromRgba(width, height, new Uint8ClampedArray(rgba));
  const { image_size: size, zoom } = config.about;
  const faces = whole ? [] : await findFaces(image, search);
  const found = whole
    ? [middleSquare(image, size)]
    : faces.map((face) => {
        const place = placeCrop(face, zoom);
        return { pixels: cutOut(image, place, size), side: place.side };
      });
  crops = found.map(({ pixels, side }) => ({ pixels, side: side * enlarge[0] }));
  const original = (box) => box.map((length, index) => length * enlarge[index % 2]);
  const where = faces.map(({ box, score, turned }) => ({ box: original(box), score, turned }));
  return { faces: where, crops: crops.map((crop) => crop.pixels), milliseconds: performance.now() - started };
}

async function answer({ tasks }) {
  const started = performance.now();
  const answers = [];
  for (const crop of crops) answers.push(await answerCrop(crop, tasks, config.about, run));
  return { answers, milliseconds: performance.now() - started };
}

async function map({ number, face, task }, id) {
  return occlusionMap(crops[face].pixels, task, run, async (share) => {
    self.postMessage({ id, share });
    await new Promise((resolve) => setTimeout(resolve)); // lets messages in
    refuseStale({ number, task }, id);
  });
}

function refuseStale({ number, task }, id) {
  if (number < latest || (task === "race" && id < hidden)) throw new Failure("stale");
}

const actions = { load, photo, answer, map };
let last = Promise.resolve(); // one after another: a session takes one call at a time

self.onmessage = ({ data: { id, action, ...arguments_ } }) => {
  if (action === "photo") latest = arguments_.number;
  if (action === "hideRace") return void (hidden = id);
  last = last
    .then(() => refuseStale(arguments_, id))
    .then(() => actions[action](arguments_, id))
    .then((result) => self.postMessage({ id, result }))
    .catch((error) => self.postMessage({ id, code: error.code ?? "unexpected", detail: String(error.message) }));
};
