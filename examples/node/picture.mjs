/** Pictures in and out, 8-bit RGB. */
import { constants } from "node:fs";
import { access } from "node:fs/promises";
import { dirname, extname } from "node:path";
import sharp from "sharp";

import { BadInput, targetSize } from "../shared/settings.mjs";

const MAX_PIXELS = 64_000_000;
const WRITES = [".png", ".jpg", ".jpeg", ".webp"];

/**
 * A picture turned as its EXIF says, transparency on white, scaled and cropped to the size it is edited at.
 *
 * @returns {Promise<{pixels: Uint8Array, size: number[]}>} pixels [height, width, 3]; size [width, height]
 */
export async function readPicture(path, resolution, multiple) {
  try {
    const upright = sharp(path, { limitInputPixels: MAX_PIXELS }).autoOrient();
    const { width, height } = (await upright.metadata()).autoOrient;
    const size = targetSize(width, height, resolution, multiple);
    const fitted = upright.flatten({ background: "white" }).resize(...size, { fit: "cover", kernel: "lanczos3" });
    const { data } = await fitted.toColourspace("srgb").removeAlpha().raw().toBuffer({ resolveWithObject: true });
    return { pixels: new Uint8Array(data), size };
  } catch (error) {
    if (error instanceof BadInput) throw error;
    throw new BadInput(`${path} cannot be read as a picture: ${error.message.trim().split("\n")[0]}`);
  }
}

/** @param {Uint8Array} pixels [height, width, 3] */
export async function writePicture(path, pixels, [width, height]) {
  await sharp(pixels, { raw: { width, height, channels: 3 } }).toFile(path);
}

/** Fails before the work, not after it. */
export async function requireWritable(path) {
  if (!WRITES.includes(extname(path).toLowerCase())) {
    throw new BadInput(`cannot save a picture as ${path}: its ending must be one of ${WRITES.join(", ")}`);
  }
  await access(dirname(path), constants.W_OK).catch(({ code }) => {
    throw new BadInput(`cannot write ${path}: its folder cannot be written (${code})`);
  });
}
