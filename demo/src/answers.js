// What the network says of a crop, in the words and numbers of `agr predict`; and what changes when parts are covered.

import { resize } from "./pixels.js";

const OUTPUTS = { age: ["age_mean", "age_interval"], gender: ["gender"], race: ["race"] };
const LUMINANCE = [0.299, 0.587, 0.114];
const GRID = 8; // cells a side of an occlusion map; a patch is two cells wide
const BATCH = 16;

const rounded = (value, digits) => Number(value.toFixed(digits));

/** Answer to some tasks about one crop {pixels, side}; `run(data, count, names)` gives the network's outputs. */
export async function answerCrop({ pixels, side }, tasks, about, run) {
  const outputs = await run(pixels.data, 1, tasks.flatMap((task) => OUTPUTS[task]));
  const answer = {};
  const confidence = {};
  if (outputs.age_mean) {
    const [low, high] = outputs.age_interval;
    answer.age = rounded(outputs.age_mean[0], 1);
    answer.age_interval = [rounded(low, 1), rounded(high, 1)];
    confidence.age = low - high;
  }
  for (const task of ["gender", "race"]) {
    if (!outputs[task]) continue;
    const row = Array.from(outputs[task]);
    const names = about.labels[task];
    confidence[task] = Math.max(...row);
    answer[task] = names[row.indexOf(confidence[task])];
    if (task === "gender") answer.gender_probability = rounded(confidence[task], 4);
    else answer.race_probabilities = Object.fromEntries(names.map((name, index) => [name, rounded(row[index], 4)]));
  }
  const unsure = Object.keys(confidence).filter((task) => confidence[task] < about.abstain[task]);
  const warnings = findWarnings(pixels, side, about.limits);
  return { answer: warnings.length ? { ...answer, warnings } : answer, unsure };
}

export const CUT_OFF = "cut off by the edge of the picture";

/** Whether a face reaches the edge of its photo, beyond which nothing of it can be seen. */
export function isCutOff([left, top, wide, high], { width, height }) {
  return Math.min(left, top, width - left - wide, height - top - high) < 0.01 * wide;
}

/** The answer with nothing in the place of what it is not sure enough of, as `agr predict --abstain` gives it. */
export function withhold({ answer, unsure }) {
  return { ...answer, abstained: unsure, ...Object.fromEntries(unsure.map((task) => [task, null])) };
}

/** What is out of range about a crop: agr_utils/deploy/quality.py. */
function findWarnings({ width, data }, side, limits) {
  const grey = Float64Array.from({ length: width * width }, (_, i) =>
    LUMINANCE.reduce((sum, weight, channel) => sum + weight * data[3 * i + channel], 0),
  );
  const edge = Math.floor(width / 6);
  const inner = width - 2 * edge;
  const middle = (y, x) => grey[(y + edge) * width + x + edge];
  let [sum, squares, detail] = [0, 0, 0];
  for (let y = 0; y < inner; y++) {
    for (let x = 0; x < inner; x++) {
      sum += middle(y, x);
      squares += middle(y, x) ** 2;
      if (y < 1 || x < 1 || y >= inner - 1 || x >= inner - 1) continue;
      let around = 0;
      for (const v of [y - 1, y, y + 1]) around += middle(v, x - 1) + middle(v, x) + middle(v, x + 1);
      detail += Math.abs(middle(y, x) - around / 9);
    }
  }
  const brightness = sum / inner ** 2;
  const contrast = Math.sqrt(Math.max(0, squares / inner ** 2 - brightness ** 2));
  const measured = { brightness, sharpness: detail / (inner - 2) ** 2 / Math.max(contrast, 1), side };
  const words = { brightness: "too dark", sharpness: "too blurred", side: "too small" };
  return Object.keys(limits).filter((name) => measured[name] <= limits[name]).map((name) => words[name]);
}

/**
 * Occlusion map (Zeiler and Fergus 2014): how far the answer falls when a patch is covered. What is explained is, as in
 * agr_utils/inside/explain.py, the age, or the predicted class (here its log-probability: the graph gives no logits).
 * Patches are covered twice, with the crop's mean colour and with a blurred copy; if both mean the same, the maps agree.
 * `progress(share)` is waited for after each batch, and stops all by throwing.
 *
 * Gives {size, values: GRID * GRID falls, positive where the part speaks for the answer; agreement: Pearson's r}.
 */
export async function occlusionMap(pixels, task, run, progress) {
  const name = task === "age" ? "age_mean" : task;
  const [before] = [await run(pixels.data, 1, [name])];
  const best = task === "age" ? 0 : before[name].indexOf(Math.max(...before[name]));
  const score = (values, at) => (task === "age" ? values[at] : Math.log(Math.max(values[at], 1e-12)));
  const covers = [meanColour(pixels), resize(resize(pixels, GRID, GRID), pixels.width, pixels.width)];
  const maps = [];
  for (const cover of covers) {
    const values = [];
    for (let first = 0; first < GRID ** 2; first += BATCH) {
      const batch = new Uint8Array(BATCH * pixels.data.length);
      for (let index = 0; index < BATCH; index++) {
        batch.set(coverPatch(pixels, cover, first + index), index * pixels.data.length);
      }
      const after = (await run(batch, BATCH, [name]))[name];
      const width = after.length / BATCH;
      for (let index = 0; index < BATCH; index++) {
        values.push(score(before[name], best) - score(after, index * width + best));
      }
      await progress((maps.length * GRID ** 2 + values.length) / (covers.length * GRID ** 2));
    }
    maps.push(values);
  }
  return {
    size: GRID,
    values: maps[0].map((value, index) => (value + maps[1][index]) / 2),
    agreement: correlation(...maps),
  };
}

function meanColour({ width, height, data }) {
  const sums = [0, 0, 0];
  data.forEach((value, index) => (sums[index % 3] += value));
  const mean = sums.map((sum) => Math.round(sum / (width * height)));
  return { width, height, data: Uint8Array.from(data, (_, index) => mean[index % 3]) };
}

function coverPatch({ width, data }, cover, cell) {
  const covered = data.slice();
  const step = width / GRID;
  const range = (index) => [(index - 0.5) * step, (index + 1.5) * step].map((v) => Math.min(Math.max(v, 0), width));
  const [top, bottom] = range(Math.floor(cell / GRID));
  const [left, right] = range(cell % GRID);
  for (let y = Math.round(top); y < Math.round(bottom); y++) {
    const [from, to] = [3 * (y * width + Math.round(left)), 3 * (y * width + Math.round(right))];
    covered.set(cover.data.subarray(from, to), from);
  }
  return covered;
}

function correlation(one, other) {
  const centred = [one, other].map((map) => map.map((v) => v - map.reduce((sum, w) => sum + w, 0) / map.length));
  const product = (a, b) => a.reduce((sum, value, index) => sum + value * b[index], 0);
  const norm = Math.sqrt(product(centred[0], centred[0]) * product(centred[1], centred[1]));
  return norm > 0 ? product(...centred) / norm : 0;
}
