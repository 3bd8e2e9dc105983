// Faces of a photograph, and the crops that the network gets: agr_utils/deploy/detect.py, line by line.

import { crop, newImage, reduce, resize, resizeFast, transform, turn } from "./pixels.js";

const MIN_SCORE = 0.35;
const SIDE = 640;
const LARGE_SIDE = 1280;
const SMALL_FACE = 60;
const OVERLAP = 0.3;
const CELL = 4;
const LAYOUT = [[0.3, 0.305], [0.69, 0.305], [0.33, 0.685], [0.655, 0.685]];

/** Python's round: halves go to the even neighbour. */
export function roundHalfEven(value) {
  const rounded = Math.round(value);
  return value % 1 !== 0 && Math.abs(value % 1) === 0.5 && rounded % 2 !== 0 ? rounded - 1 : rounded;
}

/**
 * Faces, largest first, each {box: [left, top, width, height], score, landmarks, turned}, in pixels of the image.
 * `search(canvas)` runs the detector's network on a padded image and gives its four outputs.
 */
export async function findFaces(image, search) {
  let faces = await detect(image, SIDE, search);
  const shrunk = Math.max(image.width, image.height) / SIDE;
  if (shrunk > 1 && !(faces.length && faces.at(-1).box[2] / shrunk >= SMALL_FACE)) {
    faces = largestFirst(keep([...faces, ...(await detect(image, LARGE_SIDE, search))]));
  }
  if (faces.some(isUpright)) return faces;
  let best = faces;
  let score = 0;
  for (const degrees of [90, 180, 270]) {
    const found = await detect(turn(image, degrees), SIDE, search);
    const top = Math.max(0, ...found.filter(isUpright).map((face) => face.score));
    if (top > score) {
      best = found.map((face) => turnBack(face, degrees, image));
      score = top;
    }
  }
  return best;
}

async function detect(image, side, search) {
  const scale = Math.min(1, side / Math.max(image.width, image.height));
  const wide = Math.max(1, roundHalfEven(image.width * scale));
  const high = Math.max(1, roundHalfEven(image.height * scale));
  const small = resizeFast(image, wide, high);
  const canvas = newImage(32 * Math.ceil(wide / 32), 32 * Math.ceil(high / 32)); // the network halves five times
  for (let y = 0; y < high; y++) {
    canvas.data.set(small.data.subarray(3 * y * wide, 3 * (y + 1) * wide), 3 * y * canvas.width);
  }
  const outputs = await search(canvas);
  const back = [image.width / wide, image.height / high];
  const faces = keep(readPeaks(...outputs, canvas.width / CELL, canvas.height / CELL));
  for (const face of faces) {
    face.box = face.box.map((value, index) => value * back[index % 2]);
    face.landmarks = face.landmarks.map(([x, y]) => [x * back[0], y * back[1]]);
  }
  return largestFirst(faces);
}

function readPeaks(heatmap, sizes, offsets, points, columns, rows) {
  const area = rows * columns;
  const faces = [];
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      const at = row * columns + column;
      const score = heatmap[at];
      if (!(score > MIN_SCORE) || !isPeak(heatmap, row, column, rows, columns)) continue;
      const height = Math.exp(sizes[at]) * CELL;
      const width = Math.exp(sizes[area + at]) * CELL;
      const left = (column + offsets[area + at] + 0.5) * CELL - width / 2;
      const top = (row + offsets[at] + 0.5) * CELL - height / 2;
      const landmarks = [0, 1, 2, 3, 4].map((point) => [
        left + points[(2 * point + 1) * area + at] * width,
        top + points[2 * point * area + at] * height,
      ]);
      faces.push({ box: [left, top, width, height], score, landmarks, turned: 0 });
    }
  }
  return faces;
}

function isPeak(heatmap, row, column, rows, columns) {
  const value = heatmap[row * columns + column];
  for (let y = Math.max(0, row - 1); y <= Math.min(rows - 1, row + 1); y++) {
    for (let x = Math.max(0, column - 1); x <= Math.min(columns - 1, column + 1); x++) {
      if (heatmap[y * columns + x] > value) return false;
    }
  }
  return true;
}

function keep(faces) {
  const kept = [];
  for (const face of [...faces].sort((one, other) => other.score - one.score)) {
    if (kept.every((other) => overlap(face.box, other.box) <= OVERLAP)) kept.push(face);
  }
  return kept;
}

function overlap([x1, y1, w1, h1], [x2, y2, w2, h2]) {
  const wide = Math.max(0, Math.min(x1 + w1, x2 + w2) - Math.max(x1, x2));
  const high = Math.max(0, Math.min(y1 + h1, y2 + h2) - Math.max(y1, y2));
  return (wide * high) / (w1 * h1 + w2 * h2 - wide * high);
}

function largestFirst(faces) {
  return [...faces].sort((one, other) => other.box[2] * other.box[3] - one.box[2] * one.box[3]);
}

function isUpright({ landmarks }) {
  const middle = (points) => [0, 1].map((axis) => points.reduce((sum, p) => sum + p[axis], 0) / points.length);
  const eyes = middle(landmarks.slice(0, 2));
  const mouth = middle(landmarks.slice(3));
  return mouth[1] - eyes[1] > 0.5 * Math.hypot(mouth[0] - eyes[0], mouth[1] - eyes[1]);
}

function turnBack(face, degrees, { width, height }) {
  const back = ([x, y]) =>
    degrees === 90 ? [width - y, x] : degrees === 180 ? [width - x, height - y] : [y, height - x];
  const [left, top, wide, high] = face.box;
  const one = back([left, top]);
  const other = back([left + wide, top + high]);
  const box = [0, 1].map((axis) => Math.min(one[axis], other[axis]));
  box.push(...[0, 1].map((axis) => Math.abs(one[axis] - other[axis])));
  return { box, score: face.score, landmarks: face.landmarks.map(back), turned: degrees };
}

/** The square that shows a face as the training crops do: {centre, side, angle}; least squares over eyes and mouth. */
export function placeCrop(face, zoom) {
  const layout = LAYOUT.map(([x, y]) => [(x - 0.5) / zoom, (y - 0.5) / zoom]);
  const points = [0, 1, 3, 4].map((index) => face.landmarks[index]);
  const mean = (values) => [0, 1].map((axis) => values.reduce((sum, value) => sum + value[axis], 0) / values.length);
  const [layoutMean, pointsMean] = [mean(layout), mean(points)];
  let [real, imaginary, norm] = [0, 0, 0];
  layout.forEach((place, index) => {
    const [u, v] = [place[0] - layoutMean[0], place[1] - layoutMean[1]];
    const [x, y] = [points[index][0] - pointsMean[0], points[index][1] - pointsMean[1]];
    real += u * x + v * y;
    imaginary += u * y - v * x;
    norm += u * u + v * v;
  });
  real /= norm;
  imaginary /= norm;
  const centre = [
    pointsMean[0] - (real * layoutMean[0] - imaginary * layoutMean[1]),
    pointsMean[1] - (real * layoutMean[1] + imaginary * layoutMean[0]),
  ];
  return { centre, side: Math.hypot(real, imaginary), angle: Math.atan2(imaginary, real) };
}

/** The crop of a photograph at such a place, size x size; beyond the photograph its edge is repeated. */
export function cutOut(image, { centre, side, angle }, size) {
  const half = (side * (Math.abs(Math.cos(angle)) + Math.abs(Math.sin(angle)))) / 2 + 2;
  const limits = [image.width, image.height];
  const low = centre.map((value) => Math.floor(value - half));
  const high = centre.map((value) => Math.ceil(value + half));
  const from = low.map((value, axis) => Math.min(Math.max(value, 0), limits[axis] - 1));
  const to = high.map((value, axis) => Math.max(Math.min(Math.max(value, 0), limits[axis]), from[axis] + 1));
  const shrink = Math.max(1, Math.floor(side / (4 * size)));
  let part = crop(image, [...from, ...to]);
  if (shrink > 1) part = reduce(part, shrink);
  const before = low.map((value, axis) => Math.floor(Math.max(0, from[axis] - value) / shrink));
  const after = high.map((value, axis) => Math.floor(Math.max(0, value - to[axis]) / shrink));
  part = pad(part, before, after);
  const origin = low.map((value, axis) => Math.min(value, from[axis]));
  const fine = Math.max(size, Math.min(4 * size, roundHalfEven(side / shrink))); // about a pixel a pixel
  const step = side / shrink / fine;
  const [cos, sin] = [step * Math.cos(angle), step * Math.sin(angle)];
  const [x, y] = centre.map((value, axis) => (value - origin[axis]) / shrink);
  const back = [cos, -sin, x - ((cos - sin) * fine) / 2, sin, cos, y - ((sin + cos) * fine) / 2];
  return resize(transform(part, fine, fine, back), size, size);
}

function pad(image, [left, top], [right, bottom]) {
  if (!(left || top || right || bottom)) return image;
  const padded = newImage(image.width + left + right, image.height + top + bottom);
  for (let y = 0, to = 0; y < padded.height; y++) {
    const row = Math.min(Math.max(y - top, 0), image.height - 1);
    for (let x = 0; x < padded.width; x++, to += 3) {
      const from = 3 * (row * image.width + Math.min(Math.max(x - left, 0), image.width - 1));
      padded.data.set(image.data.subarray(from, from + 3), to);
    }
  }
  return padded;
}

/** The middle square of an image, size x size: for pictures that are crops of a face already. */
export function middleSquare(image, size) {
  const side = Math.min(image.width, image.height);
  const left = (image.width - side) / 2;
  const top = (image.height - side) / 2;
  return { pixels: resize(image, size, size, [left, top, left + side, top + side]), side };
}
