/** A bundle in the browser: its graphs as ONNX Runtime sessions, and the loop over steps that makes an edit of them. */
import { BadInput } from "../shared/settings.mjs";
import { tokenReader } from "../shared/tokens.mjs";

const GRAPHS = ["text_encoder", "vae_encoder", "guided_step", "vae_decoder"];
const SCHEMA = 1; // of bundle.json; a newer one may mean something else

/**
 * @param {URL} url the bundle's folder
 * @param {"auto" | "webgpu" | "wasm"} device auto is WebGPU where the browser has it
 * @param {(loaded: number, total: number) => void} report bytes
 * @returns {Promise<object>} an engine, for `edit`: manifest, tables, encode(text), device, threads, ort, sessions
 */
export async function openEngine(url, device, report) {
  const json = async (file) => (await get(new URL(file, url))).json();
  const manifest = await json("bundle.json");
  if (!(manifest.schema <= SCHEMA)) {
    throw new BadInput(`the bundle has schema ${manifest.schema}, and this page reads up to ${SCHEMA}`);
  }
  const [tables, tokenizer, tokenizerConfig] = await Promise.all(
    ["tables.json", "tokenizer/tokenizer.json", "tokenizer/tokenizer_config.json"].map(json),
  );
  const chosen = await runtime(device);
  const files = await download(url, manifest, report);
  const sessions = {};
  for (const name of GRAPHS) {
    const { file, weights } = manifest.graphs[name];
    sessions[name] = await chosen.ort.InferenceSession.create(files.get(file), {
      executionProviders: chosen.device === "webgpu" ? ["webgpu", "wasm"] : ["wasm"],
      // a graph names the files of its weights by their paths in the bundle
      externalData: weights.map((path) => ({ path, data: files.get(path) })),
      logSeverityLevel: 3, // errors: WebGPU warns that shapes are worked out on the CPU, as they should be
    });
  }
  return { manifest, tables, encode: tokenReader(tokenizer, tokenizerConfig), sessions, ...chosen };
}

/**
 * One edit, by the inputs of guided_step.onnx that docs/embedding.md tells of.
 *
 * @param {object} engine from `openEngine`
 * @param {{pixels: Uint8Array, size: number[]}} picture [height, width, 3]; [width, height], multiples of the model's
 * @param {BigInt64Array[]} ids of the null text and of the instruction
 * @param {object} settings from `settle`
 * @param {Float32Array} noise [S + 1, C, h, w]: the start, then one a step
 * @param {(done: number) => Promise<void>} onStep called after each step; what it throws ends the edit
 * @returns {Promise<Uint8Array>} pixels [height, width, 3]
 */
export async function edit({ ort, sessions, manifest }, picture, ids, settings, noise, onStep) {
  const { table, steps, text_guidance, image_guidance } = settings;
  const float = (values, sides) => new ort.Tensor("float32", Float32Array.from(values), sides);
  const [width, height] = picture.size;
  const tokens = new ort.Tensor("int64", BigInt64Array.from(ids.flatMap((text) => [...text])), [2, ids[0].length]);
  const pixels = new ort.Tensor("uint8", picture.pixels, [1, height, width, 3]);
  const { context: contexts } = await sessions.text_encoder.run({ ids: tokens });
  const { mode: image_latents } = await sessions.vae_encoder.run({ pixels });

  const sides = image_latents.dims; // [1, C, h, w]
  const count = image_latents.size;
  const part = (i) => noise.subarray(i * count, (i + 1) * count);
  const unet = rows(ort, text_guidance, image_guidance, manifest.distilled);
  let x = float(part(0).map((value) => table.start_scale * value), sides);
  let history = float(new Float32Array(2 * count), [1, 2, ...sides.slice(1)]);
  for (let i = 0; i < steps; i++) {
    const next = await sessions.guided_step.run({
      x,
      history,
      image_latents,
      contexts,
      ...unet,
      timesteps: float([table.timesteps[i]], [1]),
      coefficients: float(table.coefficients[i], [1, 7]),
      noise: float(part(i + 1), sides),
    });
    [x, history] = [next.x_next, next.history_next];
    await onStep(i + 1);
  }
  return (await sessions.vae_decoder.run({ latents: x })).pixels.data;
}

/**
 * The UNet's rows of a step and their weights; a row of weight 0 would cost as much as another and change nothing.
 * A distilled model is told both scales and needs one row.
 */
function rows(ort, textGuidance, imageGuidance, distilled) {
  const some = [
    { weight: distilled ? 1 : textGuidance, context: 1n, image: 1 },
    { weight: distilled ? 0 : imageGuidance - textGuidance, context: 0n, image: 1 },
    { weight: distilled ? 0 : 1 - imageGuidance, context: 0n, image: 0 },
  ].filter(({ weight }) => weight !== 0);
  const column = (type, array) => new ort.Tensor(type, array, [some.length]);
  return {
    edit: column("int64", new BigInt64Array(some.length)),
    context: column("int64", BigInt64Array.from(some, ({ context }) => context)),
    image_on: column("bool", Uint8Array.from(some, ({ image }) => image)),
    weight: column("float32", Float32Array.from(some, ({ weight }) => weight)),
    ...(distilled && { scales: new ort.Tensor("float32", Float32Array.of(textGuidance, imageGuidance), [1, 2]) }),
  };
}

async function runtime(asked) {
  const gpu = asked !== "wasm" && (await navigator.gpu?.requestAdapter());
  if (asked === "webgpu" && !gpu) throw new BadInput("WebGPU is asked for, and this browser has none to give");
  // a GPU that the browser plays in software is much slower than WebAssembly
  const device = gpu && (asked === "webgpu" || !gpu.info.isFallbackAdapter) ? "webgpu" : "wasm";
  const ort = await import(`onnxruntime-web/ort.${device}.bundle.min.mjs`);
  const threads = crossOriginIsolated ? Math.min(4, navigator.hardwareConcurrency) : 1;
  ort.env.wasm.numThreads = threads;
  return { ort, device, threads };
}

/** Every file of the graphs once, though two read the same weights. */
async function download(url, manifest, report) {
  const names = new Set(GRAPHS.flatMap((name) => [manifest.graphs[name].file, ...manifest.graphs[name].weights]));
  const total = [...names].reduce((sum, name) => sum + manifest.files[name].bytes, 0);
  let loaded = 0;
  const files = new Map();
  for (const name of names) {
    const { bytes } = manifest.files[name];
    const data = new Uint8Array(bytes);
    let at = 0;
    const reader = (await get(new URL(name, url))).body.getReader();
    for (let chunk; !(chunk = await reader.read()).done; ) {
      if (at + chunk.value.length <= bytes) data.set(chunk.value, at);
      at += chunk.value.length;
      report((loaded += chunk.value.length), total);
    }
    if (at !== bytes) throw new BadInput(`${name} has ${at} bytes, must have ${bytes}; copy the bundle again`);
    files.set(name, data);
  }
  return files;
}

async function get(url) {
  const response = await fetch(url);
  if (!response.ok) throw new BadInput(`${url} cannot be read: ${response.status} ${response.statusText}`);
  return response;
}
