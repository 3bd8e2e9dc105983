// Pillow's arithmetic on 8-bit RGB images, so that the page computes the very pixels that `agr predict` computes.
// An image is {width, height, data}: data holds three bytes a pixel, row by row.

/** An image without content. */
export function newImage(width, height) {
  return { width, height, data: new Uint8Array(3 * width * height) };
}

/** RGB of the RGBA that a canvas gives. */
export function fromRgba(width, height, rgba) {
  const image = newImage(width, height);
  for (let from = 0, to = 0; from < rgba.length; from += 4, to += 3) {
    image.data[to] = rgba[from];
    image.data[to + 1] = rgba[from + 1];
    image.data[to + 2] = rgba[from + 2];
  }
  return image;
}

/** Part of an image: left, top, right, bottom, all inside. */
export function crop(image, [left, top, right, bottom]) {
  const part = newImage(right - left, bottom - top);
  for (let y = 0; y < part.height; y++) {
    const start = 3 * ((top + y) * image.width + left);
    part.data.set(image.data.subarray(start, start + 3 * part.width), 3 * y * part.width);
  }
  return part;
}

/** Turned counter-clockwise by 90, 180 or 270 degrees. */
export function turn(image, degrees) {
  const { width, height, data } = image;
  const turned = degrees === 180 ? newImage(width, height) : newImage(height, width);
  for (let y = 0, to = 0; y < turned.height; y++) {
    for (let x = 0; x < turned.width; x++, to += 3) {
      const [u, v] =
        degrees === 90 ? [width - 1 - y, x] : degrees === 180 ? [width - 1 - x, height - 1 - y] : [y, height - 1 - x];
      const from = 3 * (v * width + u);
      turned.data[to] = data[from];
      turned.data[to + 1] = data[from + 1];
      turned.data[to + 2] = data[from + 2];
    }
  }
  return turned;
}

/** Mean of blocks of pixels (Image.reduce). */
export function reduce(image, factorX, factorY = factorX) {
  const small = newImage(Math.ceil(image.width / factorX), Math.ceil(image.height / factorY));
  for (let y = 0, to = 0; y < small.height; y++) {
    const bottom = Math.min((y + 1) * factorY, image.height);
    for (let x = 0; x < small.width; x++, to += 3) {
      const right = Math.min((x + 1) * factorX, image.width);
      const count = (right - x * factorX) * (bottom - y * factorY);
      const sum = [count >> 1, count >> 1, count >> 1];
      for (let v = y * factorY; v < bottom; v++) {
        for (let u = x * factorX, from = 3 * (v * image.width + u); u < right; u++, from += 3) {
          sum[0] += image.data[from];
          sum[1] += image.data[from + 1];
          sum[2] += image.data[from + 2];
        }
      }
      const multiplier = Math.floor(2 ** 24 / count);
      for (let channel = 0; channel < 3; channel++) {
        small.data[to + channel] = Math.floor((sum[channel] * multiplier) / 2 ** 24);
      }
    }
  }
  return small;
}

/** Bilinear resize with antialiasing (Image.resize) of a box [left, top, right, bottom], which may be fractional. */
export function resize(image, width, height, box = [0, 0, image.width, image.height]) {
  const [left, top, right, bottom] = box.map(Math.fround);
  let result = image;
  if (width !== image.width || left !== 0 || right !== width) {
    result = resizeRows(result, weights(image.width, left, right, width), width);
  }
  if (height !== image.height || top !== 0 || bottom !== height) {
    result = resizeColumns(result, weights(image.height, top, bottom, height), height);
  }
  return result;
}

/** The same with whole blocks averaged first where it shrinks much (reducing_gap=2). */
export function resizeFast(image, width, height) {
  const factorX = Math.floor(image.width / width / 2) || 1;
  const factorY = Math.floor(image.height / height / 2) || 1;
  if (factorX === 1 && factorY === 1) return resize(image, width, height);
  return resize(reduce(image, factorX, factorY), width, height, [0, 0, image.width / factorX, image.height / factorY]);
}

const PRECISION = 22; // bits of a weight, as in Pillow

function weights(inSize, start, end, outSize) {
  const scale = (end - start) / outSize;
  const support = Math.max(scale, 1);
  return Array.from({ length: outSize }, (_, position) => {
    const centre = start + (position + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - support + 0.5));
    const last = Math.min(inSize, Math.trunc(centre + support + 0.5));
    const values = [];
    for (let index = first; index < last; index++) {
      values.push(Math.max(0, 1 - Math.abs((index - centre + 0.5) / support)));
    }
    const sum = values.reduce((total, value) => total + value, 0);
    return { first, values: values.map((value) => Math.trunc(0.5 + (value / sum) * 2 ** PRECISION)) };
  });
}

function resizeRows(image, columns, width) {
  const result = newImage(width, image.height);
  for (let y = 0, to = 0; y < image.height; y++) {
    for (const { first, values } of columns) {
      to = accumulate(image.data, 3 * (y * image.width + first), 3, values, result.data, to);
    }
  }
  return result;
}

function resizeColumns(image, rows, height) {
  const result = newImage(image.width, height);
  let to = 0;
  for (const { first, values } of rows) {
    for (let x = 0; x < image.width; x++) {
      to = accumulate(image.data, 3 * (first * image.width + x), 3 * image.width, values, result.data, to);
    }
  }
  return result;
}

function accumulate(data, from, step, values, target, to) {
  let red = 1 << (PRECISION - 1);
  let green = red;
  let blue = red;
  for (const value of values) {
    red += value * data[from];
    green += value * data[from + 1];
    blue += value * data[from + 2];
    from += step;
  }
  target[to] = Math.min(255, red >> PRECISION);
  target[to + 1] = Math.min(255, green >> PRECISION);
  target[to + 2] = Math.min(255, blue >> PRECISION);
  return to + 3;
}

/** An affine transformation with bicubic interpolation (Image.transform): where each pixel of the result comes from. */
export function transform(image, width, height, [a, b, c, d, e, f]) {
  const result = newImage(width, height);
  for (let y = 0, to = 0; y < height; y++) {
    for (let x = 0; x < width; x++, to += 3) {
      const u = a * (x + 0.5) + b * (y + 0.5) + c;
      const v = d * (x + 0.5) + e * (y + 0.5) + f;
      if (u < 0 || u >= image.width || v < 0 || v >= image.height) continue; // black
      interpolate(image, u - 0.5, v - 0.5, result.data, to);
    }
  }
  return result;
}

function interpolate(image, x, y, target, to) {
  const left = Math.floor(x);
  const top = Math.floor(y);
  const columns = [-1, 0, 1, 2].map((step) => 3 * Math.min(Math.max(left + step, 0), image.width - 1));
  const rows = [-1, 0, 1, 2].map((step) => 3 * image.width * Math.min(Math.max(top + step, 0), image.height - 1));
  for (let channel = 0; channel < 3; channel++) {
    const across = rows.map((row) => cubic(columns.map((column) => image.data[row + column + channel]), x - left));
    target[to + channel] = Math.min(Math.max(Math.trunc(cubic(across, y - top)), 0), 255);
  }
}

function cubic([one, two, three, four], t) {
  return two + t * (three - one + t * (2 * (one - two) + three - four + t * (two - one + four - three)));
}
