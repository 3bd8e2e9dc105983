// A file becomes pixels: turned as its EXIF says, on white where it is transparent, colours as they are stored.

export const MAX_MEGAPIXELS = 100; // as `agr predict`
const SHRINK_ABOVE = 24; // megapixels, to spare memory

/**
 * {pixels: ImageData, picture: canvas to show, width and height of the file, megapixels: of the file, or 0 where it was
 * not made smaller}. The pixels may be fewer than the file's.
 */
export async function readPhoto(file) {
  const size = await measure(file);
  const megapixels = (size.width * size.height) / 1e6;
  const values = { file: file.name, megapixels: Math.round(megapixels), limit: MAX_MEGAPIXELS };
  if (megapixels > MAX_MEGAPIXELS) throw failure("tooLarge", values);
  const scale = Math.min(1, Math.sqrt(SHRINK_ABOVE / megapixels));
  const [width, height] = [size.width, size.height].map((length) => Math.max(1, Math.round(length * scale)));
  let bitmap;
  try {
    const smaller = scale < 1 ? { resizeWidth: width, resizeHeight: height, resizeQuality: "high" } : {};
    bitmap = await createImageBitmap(file, { colorSpaceConversion: "none", ...smaller });
  } catch {
    throw failure(megapixels > SHRINK_ABOVE ? "tooHeavy" : "notImage", values);
  }
  const { canvas, context } = photoCanvas(bitmap, width, height);
  bitmap.close();
  let pixels;
  try {
    pixels = context.getImageData(0, 0, width, height);
  } catch {
    throw failure("tooHeavy", values);
  }
  return { pixels, picture: smallCopy(canvas), ...size, megapixels: scale < 1 ? values.megapixels : 0 };
}

/** Width and height of an image file; it is decoded only later. */
async function measure(file) {
  const image = new Image();
  const address = URL.createObjectURL(file);
  try {
    await new Promise((resolve, reject) => {
      image.onload = resolve;
      image.onerror = reject;
      image.src = address;
    });
  } catch {
    throw failure("notImage", { file: file.name });
  } finally {
    URL.revokeObjectURL(address);
  }
  if (!image.naturalWidth) throw failure("notImage", { file: file.name });
  return { width: image.naturalWidth, height: image.naturalHeight };
}

/** A canvas with a picture on white. */
export function photoCanvas(picture, width, height) {
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "white";
  context.fillRect(0, 0, width, height);
  context.drawImage(picture, 0, 0, width, height);
  return { canvas, context };
}

function smallCopy(canvas) {
  const scale = Math.min(1, 1280 / Math.max(canvas.width, canvas.height));
  return photoCanvas(canvas, Math.ceil(canvas.width * scale), Math.ceil(canvas.height * scale)).canvas;
}

/** An error that the page has a text for; `values` fill it in. */
export function failure(code, values) {
  return Object.assign(new Error(code), { code, values });
}
