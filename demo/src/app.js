// The page: photos in, answers out. What is computed is computed in worker.js.

import { withhold } from "./answers.js";
import config from "./config.js";
import { photoCanvas, readPhoto } from "./photo.js";
import { drawPhoto, showFace } from "./show.js";
import strings from "./strings.js";

const $ = (id) => document.getElementById(id);
const state = { language: "en", photo: null, message: ["loading", { megabytes: config.megabytes }], problem: null };

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
let worker;

function ask(action, values = {}, transfer = [], progress = () => {}) {
  const id = waiting.size ? Math.max(...waiting.keys()) + 1 : 1;
  return new Promise((resolve, reject) => {
    waiting.set(id, { resolve, reject, progress });
    worker.postMessage({ id, action, ...values }, transfer);
  });
}

function receive({ data: { id, result, share, code, detail } }) {
  const asked = waiting.get(id);
  if (share !== undefined) return asked.progress(share);
  waiting.delete(id);
  return code ? asked.reject(Object.assign(new Error(detail), { code, detail })) : asked.resolve(result);
}

async function start() {
  if (typeof WebAssembly !== "object" || typeof Worker !== "function") return fail({ code: "noWasm" });
  worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
  worker.onmessage = receive;
  worker.onerror = (event) => fail({ code: "noWasm", detail: event.message });
  try {
    state.threads = (await ask("load")).threads;
  } catch (error) {
    return fail(error);
  }
  for (const id of ["choose", "camera", "drawing"]) $(id).disabled = false;
  say("ready");
  document.documentElement.dataset.ready = "true";
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
}

function showMessages() {
  $("status").textContent = state.message ? text(...state.message) : "";
  $("problem").textContent = state.problem ? text(...state.problem) : "";
}

// --- a photo --------------------------------------------------------------------------------------------------------

async function take(file, whole = false) {
  if (!worker || $("choose").disabled || !file) return;
  closeCamera();
  Object.assign(state, { photo: null, maps: {} });
  $("result").hidden = $("whole").hidden = true;
  document.documentElement.dataset.busy = "true";
  say("reading");
  try {
    const photo = await readPhoto(file);
    const { width, height, data } = photo.pixels;
    const found = await ask("photo", { width, height, rgba: data.buffer, whole }, [data.buffer]);
    Object.assign(photo, { file, whole, ...found, pixels: null, detected: found.milliseconds });
    if (found.crops.length === 0) {
      say("noFace");
      state.last = file;
      $("whole").hidden = false;
    } else {
      Object.assign(photo, await ask("answer", { tasks: tasks() }));
      state.photo = photo;
      say(whole ? "wholeDone" : "found", whole ? {} : found.crops.length);
      render();
    }
  } catch (error) {
    fail(error);
  }
  delete document.documentElement.dataset.busy;
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
  $("faces").replaceChildren(
    ...faces.map((face, index) => showFace(face, index, photo, { ...tools, tasks: tasks(), explain, maps: state.maps })),
  );
  $("json").textContent = JSON.stringify(told, null, 2);
  const timing = { detect: number(Math.round(photo.detected)), answer: number(Math.round(photo.milliseconds)) };
  const about = { threads: text("threads", state.threads), width: photo.width, height: photo.height };
  const shrunk = photo.megapixels ? ` ${text("shrunk", { megapixels: number(photo.megapixels) })}` : "";
  $("timing").textContent = text("timing", { ...timing, ...about }) + shrunk;
}

async function explain(face, task) {
  const key = String(face);
  const { maps } = state;
  maps[key] = { task, share: 0 };
  render();
  try {
    const map = await ask("map", { face, task }, [], (share) => {
      maps[key].share = share;
      render();
    });
    maps[key] = { task, ...map };
  } catch (error) {
    delete maps[key];
    fail(error);
  }
  if (maps === state.maps) render();
}

// --- the camera -----------------------------------------------------------------------------------------------------

async function openCamera() {
  try {
    $("video").srcObject = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "user" } });
  } catch (error) {
    return fail({ code: error.name === "NotAllowedError" ? "cameraDenied" : "noCamera" });
  }
  $("viewfinder").hidden = false;
  await $("video").play();
  $("shoot").focus();
}

function closeCamera() {
  for (const track of $("video").srcObject?.getTracks() ?? []) track.stop();
  $("video").srcObject = null;
  $("viewfinder").hidden = true;
}

async function shoot() {
  const { videoWidth: width, videoHeight: height } = $("video");
  if (!width) return;
  const { canvas } = photoCanvas($("video"), width, height);
  const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
  take(new File([blob], "camera.png", { type: "image/png" }));
}

// --- what the user does ---------------------------------------------------------------------------------------------

function imageOf(transfer) {
  return [...transfer.files].find((file) => file.type.startsWith("image/")) ?? transfer.files[0];
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
    take($("file").files[0]);
    $("file").value = ""; // so that the same file can be chosen again
  };
  $("camera").onclick = openCamera;
  $("shoot").onclick = shoot;
  $("stop").onclick = closeCamera;
  $("whole").onclick = () => take(state.last, true);
  $("drawing").onclick = async () => {
    const content = await (await fetch("drawing.png")).blob();
    take(new File([content], "drawing.png", { type: "image/png" }), true);
  };
  $("abstain").onchange = render;
  $("race").onchange = async () => {
    if (state.photo) Object.assign(state.photo, await ask("answer", { tasks: tasks() }));
    render();
  };
  document.onpaste = (event) => take(imageOf(event.clipboardData));
  document.ondragover = (event) => {
    event.preventDefault();
    $("drop").classList.add("over");
  };
  document.ondragleave = () => $("drop").classList.remove("over");
  document.ondrop = (event) => {
    event.preventDefault();
    $("drop").classList.remove("over");
    take(imageOf(event.dataTransfer));
  };
  for (const [code, { name }] of Object.entries(strings)) $("language").append(new Option(name, code));
  $("language").onchange = () => setLanguage($("language").value);
}

listen();
setLanguage(navigator.language.slice(0, 2));
$("language").value = state.language;
start();
