// face-api (JavaScript, WebAssembly) answers about face crops, one a line: what `agr bench deploy --rival` talks to.
//
//   npm install --prefix rivals --ignore-scripts @vladmandic/face-api@1.7.15 @tensorflow/tfjs@4 @tensorflow/tfjs-backend-wasm@4 pngjs@7
//   agr bench deploy RUN ... --rival "node tools/rivals/face_api.mjs rivals/node_modules"

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import readline from "node:readline";

const modules = path.resolve(process.argv[2] ?? "rivals/node_modules");
const require = createRequire(path.join(modules, "x.js"));
const tf = require("@tensorflow/tfjs");
const wasm = require("@tensorflow/tfjs-backend-wasm");
const faceapi = require("@vladmandic/face-api/dist/face-api.node-wasm.js");
const { PNG } = require("pngjs");

wasm.setWasmPaths(path.join(modules, "@tensorflow/tfjs-backend-wasm/dist/"));
await tf.setBackend("wasm");
await tf.ready();
await faceapi.nets.ageGenderNet.loadFromDisk(path.join(modules, "@vladmandic/face-api/model"));

for await (const line of readline.createInterface({ input: process.stdin })) {
  const { width, height, data } = PNG.sync.read(readFileSync(line.trim()));
  const rgb = Int32Array.from({ length: 3 * width * height }, (_, i) => data[4 * Math.floor(i / 3) + (i % 3)]);
  const start = performance.now();
  const image = tf.tensor3d(rgb, [height, width, 3], "int32");
  const { age, gender } = await faceapi.nets.ageGenderNet.predictAgeAndGender(image);
  const seconds = (performance.now() - start) / 1000;
  image.dispose();
  console.log(JSON.stringify({ seconds, age, gender: Number(gender === "female") }));
}
