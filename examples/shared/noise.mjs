/** Noise of an edit: from a seed, or given as the bytes of a file. */
import { BadInput } from "./settings.mjs";

/**
 * Unit normal numbers, the same for a seed on every machine. They are not those that Python draws for it: give both
 * the same file of noise to compare pictures.
 *
 * @param {number} seed 0 to 2^32 - 1
 */
export function unitNormal(seed, count) {
  const uniform = uniforms(seed);
  const values = new Float32Array(count);
  for (let i = 0; i < count; i += 2) {
    // Box and Muller 1958: two uniform numbers make two normal ones
    const radius = Math.sqrt(-2 * Math.log(1 - uniform()));
    const angle = 2 * Math.PI * uniform();
    values[i] = radius * Math.cos(angle);
    if (i + 1 < count) values[i + 1] = radius * Math.sin(angle);
  }
  return values;
}

/**
 * @param {ArrayBuffer} bytes little-endian float32, as numpy's `tofile` writes them
 * @param {number[]} shape what they must fill
 */
export function givenNoise(bytes, shape, name) {
  const count = shape.reduce((a, b) => a * b);
  if (bytes.byteLength !== 4 * count) {
    throw new BadInput(
      `${name} has ${bytes.byteLength} bytes: float32 [${shape.join(", ")}] is needed, which is ${4 * count} bytes`,
    );
  }
  const values = new Float32Array(bytes);
  if (!values.every(Number.isFinite)) throw new BadInput(`${name} has values that are not finite`);
  return values;
}

/** Numbers in [0, 1): a counter through a 32-bit mixing of bits (SplitMix, Steele et al. 2014), two draws a number. */
function uniforms(seed) {
  let counter = Math.imul(seed, 0x85ebca6b) | 0;
  const draw = () => {
    counter = (counter + 0x9e3779b9) | 0;
    let bits = Math.imul(counter ^ (counter >>> 16), 0x21f0aaad);
    bits = Math.imul(bits ^ (bits >>> 15), 0x735a2d97);
    return (bits ^ (bits >>> 15)) >>> 0;
  };
  return () => ((draw() >>> 5) * 2 ** 26 + (draw() >>> 6)) / 2 ** 53;
}
