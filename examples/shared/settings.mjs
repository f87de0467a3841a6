/** What an edit needs besides its picture and its texts, checked before any work starts. */

/** Something the user gave that cannot be met; the message says what, the limit and the way out. */
export class BadInput extends Error {}

const PAPER = { sampler: "euler_a", steps: 20, text_guidance: 7.5, image_guidance: 1.5 };
const MAX_GUIDANCE = 1000;
const MAX_STRETCH = 8; // times the resolution that the longer side may be

/**
 * The settings of an edit: those given, then the model's own, then the paper's.
 *
 * @param {object} manifest bundle.json
 * @param {object} tables tables.json: by sampler, then by number of steps
 * @param {object} given any of sampler, steps, text_guidance, image_guidance, size; numbers may be text
 * @returns {object} the same, and `table`: start_scale, timesteps [S], coefficients [S][7]
 */
export function settle(manifest, tables, given) {
  const chosen = { ...PAPER, ...manifest.defaults };
  for (const [name, value] of Object.entries(given)) if (value !== undefined) chosen[name] = value;
  const { sampler } = chosen;
  if (!Object.hasOwn(tables, sampler)) {
    throw new BadInput(`unknown sampler '${sampler}': choose one of ${Object.keys(tables).join(", ")}`);
  }
  const steps = String(chosen.steps);
  if (!Object.hasOwn(tables[sampler], steps)) {
    const known = Object.keys(tables[sampler]).join(", ");
    throw new BadInput(`steps is '${steps}': the bundle has tables of ${known} steps`);
  }
  return {
    sampler,
    steps: Number(steps),
    text_guidance: guidance("text guidance", chosen.text_guidance),
    image_guidance: guidance("image guidance", chosen.image_guidance),
    size: whole("size", chosen.size, manifest.size_multiple, 8192),
    table: tables[sampler][steps],
  };
}

/** A whole number from `low` to `high`, or BadInput. */
export function whole(name, given, low, high) {
  const value = number(given);
  if (!Number.isInteger(value) || value < low || value > high) {
    throw new BadInput(`${name} is '${given}': a whole number from ${low} to ${high} is needed`);
  }
  return value;
}

/**
 * The [width, height] at which a picture is edited: about `resolution` on the longer side, the aspect kept, both sides
 * multiples of `multiple`. The paper's rule (Brooks et al. 2023), in whole numbers as `ip2p_fast.images.target_size`.
 */
export function targetSize(width, height, resolution, multiple) {
  const [short, long] = [Math.min(width, height), Math.max(width, height)];
  const blocks = Math.ceil((short * resolution) / (long * multiple));
  const [newShort, newLong] = [blocks * multiple, Math.floor((long * blocks) / short) * multiple];
  if (newLong > MAX_STRETCH * resolution) {
    throw new BadInput(
      `a ${width}x${height} picture is too long: its longer side would become ${newLong} pixels, over the limit of ` +
        `${MAX_STRETCH} times the size ${resolution}; crop it first`,
    );
  }
  return width >= height ? [newLong, newShort] : [newShort, newLong];
}

/** The shape of an edit's noise, [S + 1, C, h, w], for a picture of the given size. */
export function noiseShape(manifest, steps, [width, height]) {
  return [steps + 1, manifest.latent_channels, height / manifest.vae_scale, width / manifest.vae_scale];
}

function guidance(name, given) {
  const value = number(given);
  if (!(Math.abs(value) <= MAX_GUIDANCE)) {
    throw new BadInput(`${name} is '${given}': a number from -${MAX_GUIDANCE} to ${MAX_GUIDANCE} is needed`);
  }
  return value;
}

function number(given) {
  return String(given).trim() ? Number(given) : NaN; // Number("") is 0
}
