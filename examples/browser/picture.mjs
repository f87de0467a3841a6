/** Pictures between files, canvases and the [height, width, 3] pixels that graphs read. */
import { BadInput, targetSize } from "../shared/settings.mjs";

/**
 * Draws a picture on the canvas as it will be edited: upright, on white, scaled and cropped to the size for the model.
 *
 * @param {Blob} file
 */
export async function drawFitted(canvas, file, resolution, multiple) {
  const image = await createImageBitmap(file).catch(() => {
    throw new BadInput("this file is not a picture that the browser reads");
  });
  const [width, height] = targetSize(image.width, image.height, resolution, multiple);
  const scale = Math.max(width / image.width, height / image.height);
  const [shown, tall] = [width / scale, height / scale];
  Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "white";
  context.fillRect(0, 0, width, height);
  context.imageSmoothingQuality = "high";
  context.drawImage(image, (image.width - shown) / 2, (image.height - tall) / 2, shown, tall, 0, 0, width, height);
}

/** @returns {{pixels: Uint8Array, size: number[]}} pixels [height, width, 3]; size [width, height] */
export function readCanvas(canvas) {
  const { width, height } = canvas;
  const { data } = canvas.getContext("2d").getImageData(0, 0, width, height); // [height, width, 4]
  const pixels = data.filter((_, i) => i % 4 !== 3);
  return { pixels: new Uint8Array(pixels.buffer), size: [width, height] };
}

/** @param {Uint8Array} pixels [height, width, 3] */
export function drawPixels(canvas, pixels, [width, height]) {
  const image = new ImageData(width, height);
  image.data.fill(255);
  pixels.forEach((value, i) => (image.data[4 * Math.floor(i / 3) + (i % 3)] = value));
  Object.assign(canvas, { width, height });
  canvas.getContext("2d").putImageData(image, 0, 0);
}
