/** Edits a picture by an instruction: one call of a bundle's edit.onnx, without Python. */
import { readFile } from "node:fs/promises";
import { basename } from "node:path";
import { parseArgs } from "node:util";
import ort from "onnxruntime-node";

import { givenNoise, unitNormal } from "../shared/noise.mjs";
import { BadInput, noiseShape, settle, whole } from "../shared/settings.mjs";
import { tokenReader } from "../shared/tokens.mjs";
import { openBundle } from "./bundle.mjs";
import { readPicture, requireWritable, writePicture } from "./picture.mjs";

const USAGE = `usage: node edit.mjs BUNDLE IN.png "make it night" OUT.png
  --steps N             4, 8, 20 or 50, as the bundle's tables.json has
  --sampler NAME        euler_a, euler, ddim, dpmpp_2m or lcm
  --text-guidance X     higher follows the instruction more
  --image-guidance X    higher keeps the picture more
  --negative TEXT       what to avoid
  --size N              the longer side, in pixels
  --seed N              0 to 4294967295; without it one is drawn
  --noise FILE          float32 [steps + 1, C, h, w] in place of the seed's
What is not given is the model's own.`;
const HELP = "node edit.mjs --help tells more";
const MAX_SEED = 2 ** 32 - 1;

try {
  await main(process.argv.slice(2));
} catch (error) {
  if (!(error instanceof BadInput)) throw error;
  console.error(`error: ${error.message}`);
  process.exitCode = 2;
}

async function main(args) {
  if (args.includes("--help")) return console.log(USAGE);
  const { folder, input, instruction, output, options } = parse(args);
  await requireWritable(output);
  const bundle = await openBundle(folder);
  const settings = settle(bundle.manifest, bundle.tables, options);
  const picture = await readPicture(input, settings.size, bundle.manifest.size_multiple);
  const shape = noiseShape(bundle.manifest, settings.steps, picture.size);
  const { noise, origin } = await readNoise(options, shape);
  const encode = tokenReader(bundle.tokenizer, bundle.tokenizerConfig);
  const texts = [options.negative, instruction].map(encode);
  if (texts.some(({ cut }) => cut)) console.error(`warning: a text is longer than ${texts[0].ids.length} tokens, cut`);

  const session = await ort.InferenceSession.create(bundle.editGraph);
  const start = performance.now();
  const { edited } = await session.run(inputs(picture, texts, settings, noise, shape));
  const seconds = ((performance.now() - start) / 1000).toFixed(2);
  await writePicture(output, edited.data, picture.size);
  console.log(`${output}: ${picture.size.join("x")}, ${settings.steps} steps in ${seconds} s, ${origin}`);
}

/** Of one edit: the batch B is 1. */
function inputs(picture, texts, { table, steps, text_guidance, image_guidance }, noise, shape) {
  const [width, height] = picture.size;
  const float = (values, sides) => new ort.Tensor("float32", Float32Array.from(values), sides);
  const length = texts[0].ids.length;
  return {
    pixels: new ort.Tensor("uint8", picture.pixels, [1, height, width, 3]),
    ids: new ort.Tensor("int64", BigInt64Array.from(texts.flatMap((text) => [...text.ids])), [1, 2, length]),
    text_guidance: float([text_guidance], [1, 1]),
    image_guidance: float([image_guidance], [1, 1]),
    start_scale: float([table.start_scale], [1, 1]),
    timesteps: float(table.timesteps, [1, steps]),
    coefficients: float(table.coefficients.flat(), [1, steps, 7]),
    noise: new ort.Tensor("float32", noise, [1, ...shape]),
  };
}

async function readNoise({ seed, noise: file }, shape) {
  if (file === undefined) {
    const chosen = seed === undefined ? Math.floor(Math.random() * MAX_SEED) : whole("seed", seed, 0, MAX_SEED);
    const count = shape.reduce((a, b) => a * b);
    return { noise: unitNormal(chosen, count), origin: `seed ${chosen}` };
  }
  const bytes = await readFile(file).catch(({ code }) => {
    throw new BadInput(`the noise ${file} cannot be read: ${code}`);
  });
  const noise = givenNoise(Uint8Array.from(bytes).buffer, shape, file);
  return { noise, origin: `noise ${basename(file)}` };
}

function parse(args) {
  const names = ["steps", "sampler", "text-guidance", "image-guidance", "negative", "size", "seed", "noise"];
  const options = Object.fromEntries(names.map((name) => [name, { type: "string" }]));
  let parsed;
  try {
    parsed = parseArgs({ args, options, allowPositionals: true });
  } catch (error) {
    throw new BadInput(`${error.message.split(". ")[0]}; ${HELP}`);
  }
  const count = parsed.positionals.length;
  if (count !== 4) throw new BadInput(`BUNDLE, IN, INSTRUCTION, OUT are needed, ${count} arguments are given; ${HELP}`);
  const [folder, input, instruction, output] = parsed.positionals;
  if (!instruction.trim()) throw new BadInput("the instruction is empty: say what to change");
  const given = Object.entries(parsed.values).map(([name, value]) => [name.replace("-", "_"), value]);
  return { folder, input, instruction, output, options: { negative: "", ...Object.fromEntries(given) } };
}
