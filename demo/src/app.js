// The page: photos in, answers out. What is computed is computed in worker.js.

import { CUT_OFF, isCutOff, withhold } from "./answers.js";
import config from "./config.js";
import { failure, photoCanvas, readPhoto } from "./photo.js";
import { drawPhoto, showFace, showProgress } from "./show.js";
import strings from "./strings.js";

const $ = (id) => document.getElementById(id);
const state = {
  language: "en",
  number: 0, // of the newest photo that was asked for: what belongs to an older one is dropped
  photo: null,
  message: ["loading", { megabytes: config.megabytes }],
  note: null,
  problem: null,
  cameraRequest: 0,
};

/** A text in the chosen language, with what stands in braces filled in. */
function text(key, values = {}) {
  const found = strings[state.language][key];
  if (typeof found === "function") return found(values);
  return found.replace(/\{(\w+)\}/g, (_, name) => values[name] ?? "");
}

function number(value, options) {
  return new Intl.NumberFormat(state.language, options).format(value);
}

const tools = { text, number, config };

// --- the worker -----------------------------------------------------------------------------------------------------

const waiting = new Map();
let asked = 0; // so often: the number of a question is never used again
let worker;

function ask(action, values = {}, transfer = [], progress = () => {}) {
  const id = ++asked;
  return new Promise((resolve, reject) => {
    waiting.set(id, { resolve, reject, progress });
    worker.postMessage({ id, action, ...values }, transfer);
  });
}

function receive({ data: { id, result, share, code, detail } }) {
  const question = waiting.get(id);
  if (!question) return; // given up: the worker had failed
  if (share !== undefined) return question.progress(share);
  waiting.delete(id);
  return code ? question.reject(Object.assign(new Error(detail), { code, detail })) : question.resolve(result);
}

// A module that is valid only where there is SIMD (i8x16.splat, i8x16.popcnt).
const SIMD = new Uint8Array(
  [0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11],
);

function startWorker() {
  // A worker of its own address obeys only the policy in its own headers, which not every host sends; one that starts
  // from a blob obeys the page's.
  const script = `import ${JSON.stringify(new URL("worker.js", import.meta.url))};`;
  worker = new Worker(URL.createObjectURL(new Blob([script], { type: "text/javascript" })), { type: "module" });
  worker.onmessage = receive;
  worker.onerror = ({ message }) => {
    for (const { reject } of waiting.values()) reject(failure("notStarted", { detail: message || "worker.js" }));
    waiting.clear();
  };
}

/** Whether the networks are ready; if not, it was said why. */
async function start() {
  try {
    if (typeof Worker !== "function" || !WebAssembly.validate(SIMD)) throw new Error();
  } catch {
    return fail({ code: "noWasm" });
  }
  try {
    startWorker();
    state.threads = (await ask("load")).threads;
  } catch (error) {
    return fail(error);
  }
  for (const id of ["choose", "camera", "drawing"]) $(id).disabled = false;
  say("ready");
  document.documentElement.dataset.ready = "true";
  return true;
}

// --- messages -------------------------------------------------------------------------------------------------------

function say(key, values) {
  state.message = [key, values];
  state.problem = null;
  showMessages();
}

function fail(error) {
  state.problem = [error.code ?? "unexpected", { detail: error.message ?? "", ...error.values, ...error }];
  state.message = null;
  showMessages();
  return false;
}

function showMessages() {
  const said = state.message ? [state.message, state.note].filter(Boolean) : [];
  $("status").textContent = said.map((message) => text(...message)).join(" ");
  $("problem").textContent = state.problem ? text(...state.problem) : "";
}

// --- a photo --------------------------------------------------------------------------------------------------------

/** Answer a photo: a file, or the promise of one. What was begun for an earlier one is given up. */
async function take(given, { whole = false, count = 1 } = {}) {
  const number = ++state.number;
  const isLatest = () => number === state.number;
  closeCamera();
  Object.assign(state, { photo: null, note: count > 1 ? ["onlyOne", { count, file: given.name }] : null });
  $("result").hidden = $("whole").hidden = true;
  document.documentElement.dataset.busy = "true";
  try {
    Promise.resolve(given).catch(() => {}); // what is wrong with it is said when it is awaited, below
    if (state.isReady === undefined) say("waiting");
    if (!(await ready)) return;
    say("reading");
    const file = await given;
    const photo = await readPhoto(file);
    if (!isLatest()) return;
    const { width, height, data } = photo.pixels;
    const enlarge = [photo.width / width, photo.height / height];
    const found = await ask("photo", { number, width, height, rgba: data.buffer, enlarge, whole }, [data.buffer]);
    if (!isLatest()) return;
    Object.assign(photo, { number, file, whole, ...found, pixels: null, detected: found.milliseconds, maps: {} });
    if (found.crops.length === 0) {
      say("noFace");
      state.last = file;
      $("whole").hidden = false;
      return;
    }
    await answer(photo);
    if (!isLatest()) return;
    state.photo = photo;
    sayFound(photo);
    render();
  } catch (error) {
    if (isLatest()) fail(error);
  } finally {
    if (isLatest()) delete document.documentElement.dataset.busy;
  }
}

function sayFound({ whole, crops }) {
  say(whole ? "wholeDone" : "found", whole ? {} : crops.length);
}

/** Answers to what is asked now: race may be asked for, or no longer, while the worker is busy. */
async function answer(photo) {
  let found, asked;
  do {
    asked = tasks();
    found = await ask("answer", { number: photo.number, tasks: asked });
  } while (asked.length !== tasks().length);
  Object.assign(photo, found);
}

async function showRace() {
  const { photo } = state;
  if (photo && $("race").checked) {
    try {
      await answer(photo);
    } catch (error) {
      if (photo === state.photo) fail(error);
    }
  } else if (photo) {
    for (const item of photo.answers) {
      delete item.answer.race;
      delete item.answer.race_probabilities;
      item.unsure = item.unsure.filter((task) => task !== "race");
    }
    const faces = Object.keys(photo.maps).filter((face) => photo.maps[face].task === "race");
    for (const face of faces) delete photo.maps[face];
    worker.postMessage({ id: ++asked, action: "hideRace" });
    if (faces.length) sayFound(photo); // no longer that a map is being made
  }
  render();
}

function tasks() {
  return $("race").checked ? ["age", "gender", "race"] : ["age", "gender"];
}

/** Everything that `agr predict --json` says of the photo. */
function summary() {
  const { photo } = state;
  const answers = photo.answers.map((item) => ($("abstain").checked ? withhold(item) : item.answer));
  const { run_id: model, model_sha256, trained_ages } = config.about;
  const source = { model, model_sha256: model_sha256.slice(0, 16), trained_ages };
  const path = photo.file.name;
  if (photo.whole) return { path, ...answers[0], ...source };
  const faces = photo.faces.map(({ box, score, turned }, index) => ({
    box: box.map(Math.round),
    score: Number(score.toFixed(3)),
    ...(turned ? { turned } : {}),
    ...answers[index],
    ...(isCutOff(box, photo) ? { warnings: [...(answers[index].warnings ?? []), CUT_OFF] } : {}),
  }));
  return { path, faces, ...source };
}

function render() {
  const { photo } = state;
  $("race-note").hidden = !$("race").checked;
  if (!photo) return;
  $("result").hidden = false;
  drawPhoto($("photo"), photo);
  $("photo").setAttribute("aria-label", photo.whole ? text("wholeDone") : text("photoLabel", photo.faces.length));
  const told = summary();
  const faces = photo.whole ? [told] : told.faces;
  const focused = document.activeElement.id;
  $("faces").replaceChildren(
    ...faces.map((face, index) => showFace(face, index, photo, { ...tools, tasks: tasks(), explain })),
  );
  $(focused)?.focus(); // a button of a map is another one now
  $("json").textContent = JSON.stringify(told, null, 2);
  const timing = { detect: number(Math.round(photo.detected)), answer: number(Math.round(photo.milliseconds)) };
  const about = { threads: text("threads", state.threads), width: photo.width, height: photo.height };
  const shrunk = photo.megapixels ? ` ${text("shrunk", { megapixels: number(photo.megapixels) })}` : "";
  $("timing").textContent = text("timing", { ...timing, ...about }) + shrunk;
}

async function explain(face, task) {
  const { photo } = state;
  const map = { task, share: 0 };
  photo.maps[face] = map;
  const isShown = () => photo === state.photo && photo.maps[face] === map;
  const progress = (share) => {
    map.share = share;
    if (isShown()) showProgress($(`progress-${face}`), map, tools);
  };
  say("mapBegun");
  render();
  try {
    Object.assign(map, await ask("map", { number: photo.number, face, task }, [], progress));
    if (!isShown()) return;
    if (Object.values(photo.maps).every((one) => one.values)) say("mapDone");
  } catch (error) {
    if (!isShown()) return;
    delete photo.maps[face];
    fail(error);
  }
  render();
}

// --- the camera -----------------------------------------------------------------------------------------------------

async function openCamera() {
  closeCamera();
  const request = ++state.cameraRequest;
  try {
    const stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "user" } });
    if (request !== state.cameraRequest) return stop(stream);
    $("video").srcObject = stream;
    $("viewfinder").hidden = false;
    $("shoot").focus();
    await $("video").play();
  } catch (error) {
    if (request !== state.cameraRequest) return;
    closeCamera();
    const codes = { NotAllowedError: "cameraDenied", NotReadableError: "cameraBusy" };
    fail({ code: codes[error.name] ?? "noCamera" });
  }
}

/** Close it, or take back the request for it. */
function closeCamera() {
  state.cameraRequest += 1;
  stop($("video").srcObject);
  $("video").srcObject = null;
  const focused = $("viewfinder").contains(document.activeElement);
  $("viewfinder").hidden = true;
  if (focused) $("camera").focus();
}

function stop(stream) {
  for (const track of stream?.getTracks() ?? []) track.stop();
}

function shoot() {
  const { videoWidth: width, videoHeight: height } = $("video");
  if (!width) return;
  const { canvas } = photoCanvas($("video"), width, height);
  const toFile = (blob) => new File([blob], "camera.png", { type: "image/png" });
  take(new Promise((resolve) => canvas.toBlob((blob) => resolve(toFile(blob)), "image/png")));
}

// --- what the user does ---------------------------------------------------------------------------------------------

/** Answer the first image among files, or else say what the first file is not. */
function takeFirst(files) {
  if (files.length === 0) return fail({ code: "noFile" });
  take([...files].find((file) => file.type.startsWith("image/")) ?? files[0], { count: files.length });
}

async function fetchDrawing() {
  try {
    const response = await fetch("drawing.png");
    if (!response.ok) throw new Error(`HTTP ${response.status}`);
    return new File([await response.blob()], "drawing.png", { type: "image/png" });
  } catch (error) {
    throw failure("fileMissing", { detail: `drawing.png: ${error.message}` });
  }
}

function setLanguage(language) {
  state.language = language in strings ? language : "en";
  document.documentElement.lang = state.language;
  for (const element of document.querySelectorAll("[data-text]")) element.textContent = text(element.dataset.text);
  document.title = text("title");
  const { run_id: run, model_sha256: sha, licence } = config.about;
  $("model").textContent = text("model", { run, sha: sha.slice(0, 16), licence });
  showMessages();
  render();
}

function listen() {
  $("choose").onclick = () => $("file").click();
  $("file").onchange = () => {
    takeFirst($("file").files);
    $("file").value = ""; // so that the same file can be chosen again
  };
  $("camera").onclick = openCamera;
  $("shoot").onclick = shoot;
  $("stop").onclick = closeCamera;
  document.onkeydown = ({ key }) => {
    if (key === "Escape") closeCamera();
  };
  $("whole").onclick = () => take(state.last, { whole: true });
  $("drawing").onclick = () => take(fetchDrawing(), { whole: true });
  $("abstain").onchange = render;
  $("race").onchange = showRace;
  document.onpaste = (event) => {
    takeFirst(event.clipboardData.files);
  };
  document.ondragover = (event) => {
    event.preventDefault();
    $("drop").classList.add("over");
  };
  document.ondragleave = () => $("drop").classList.remove("over");
  document.ondrop = (event) => {
    event.preventDefault();
    $("drop").classList.remove("over");
    takeFirst(event.dataTransfer.files);
  };
  for (const [code, { name }] of Object.entries(strings)) $("language").append(new Option(name, code));
  $("language").onchange = () => setLanguage($("language").value);
}

listen();
setLanguage(navigator.language.slice(0, 2));
$("language").value = state.language;
const ready = start();
ready.then((isReady) => Object.assign(state, { isReady }));
