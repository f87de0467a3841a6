/**
 * The page: what a person sets and sees. In its address,
 *   bundle=URL             the bundle's folder; the pocket model of this repository without it
 *   device=webgpu | wasm   what computes; WebGPU where there is one without it
 *   noise=URL              float32 [steps + 1, C, h, w], in place of the seed's
 */
import { givenNoise, unitNormal } from "../shared/noise.mjs";
import { BadInput, noiseShape, settle, whole } from "../shared/settings.mjs";
import { edit, openEngine } from "./engine.mjs";
import { drawFitted, drawPixels, readCanvas } from "./picture.mjs";

const query = new URLSearchParams(location.search);
const bundle = new URL((query.get("bundle") ?? "../../ip2p_fast/pocket").replace(/\/*$/, "/"), location.href);
const $ = (id) => document.getElementById(id);
const form = $("form");
let running = null; // the AbortController of the edit that runs

await guarded(async () => {
  const engine = await openEngine(bundle, query.get("device") ?? "auto", (loaded, total) => {
    tell(`Loading the model: ${megabytes(loaded)} of ${megabytes(total)} MB`, loaded, total);
  });
  fillForm(engine);
  await showSamples(engine);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (running) running.abort();
    else guarded(() => run(engine));
  });
  $("file").addEventListener("change", () => guarded(() => choose(engine, $("file").files[0])));
  $("save").addEventListener("click", save);
  $("edit").disabled = false;
  const threads = engine.threads === 1 ? "1 thread" : `${engine.threads} threads`;
  $("device").textContent = engine.device === "webgpu" ? "WebGPU" : `WebAssembly, ${threads}`;
  tell("Ready.");
});

async function run(engine) {
  const { elements } = form;
  const given = Object.fromEntries(
    ["steps", "sampler", "text_guidance", "image_guidance"].map((name) => [name, elements[name].value]),
  );
  const settings = settle(engine.manifest, engine.tables, given);
  const instruction = elements.instruction.value;
  if (!instruction.trim()) throw new BadInput("The instruction is empty: say what to change");
  const texts = ["", instruction].map(engine.encode);
  const picture = readCanvas($("before"));
  const noise = await makeNoise(noiseShape(engine.manifest, settings.steps, picture.size));

  running = new AbortController();
  const { signal } = running;
  $("edit").textContent = "Stop";
  form.classList.add("running");
  const start = performance.now();
  try {
    const ids = texts.map((text) => text.ids);
    tell(`Step 0 of ${settings.steps}`, 0, settings.steps);
    const pixels = await edit(engine, picture, ids, settings, noise, async (done) => {
      tell(`Step ${done} of ${settings.steps}`, done, settings.steps);
      await new Promise(requestAnimationFrame); // the page draws, and hears a press on Stop
      signal.throwIfAborted();
    });
    drawPixels($("after"), pixels, picture.size);
    $("save").disabled = false;
    const cut = texts[1].cut ? " The instruction was too long, its end was cut." : "";
    tell(`Done in ${((performance.now() - start) / 1000).toFixed(1)} s.${cut}`);
  } catch (error) {
    if (!signal.aborted) throw error;
    tell("Stopped.");
  } finally {
    running = null;
    $("edit").textContent = "Edit";
    form.classList.remove("running");
  }
}

async function makeNoise(shape) {
  const url = query.get("noise");
  if (!url) {
    const seed = whole("seed", form.elements.seed.value, 0, 2 ** 32 - 1);
    return unitNormal(seed, shape.reduce((a, b) => a * b));
  }
  const response = await fetch(url);
  if (!response.ok) throw new BadInput(`${url} cannot be read: ${response.status}`);
  return givenNoise(await response.arrayBuffer(), shape, url);
}

/** The model's own settings, and the samplers and steps that its bundle has tables of. */
function fillForm({ manifest, tables }) {
  const { sampler, steps, text_guidance, image_guidance } = settle(manifest, tables, {});
  const { elements } = form;
  elements.sampler.replaceChildren(...Object.keys(tables).map((name) => new Option(name, name)));
  elements.steps.replaceChildren(...Object.keys(tables[sampler]).map((name) => new Option(name, name)));
  for (const [name, value] of Object.entries({ sampler, steps, text_guidance, image_guidance })) {
    elements[name].value = value;
  }
  for (const name of ["text_guidance", "image_guidance"]) {
    const show = () => ($(`${name}_value`).textContent = Number(elements[name].value).toFixed(1));
    elements[name].addEventListener("input", show);
    show();
  }
  $("model").textContent = manifest.model.name;
}

/** Pictures that a bundle may bring along, each with an instruction that suits it. */
async function showSamples(engine) {
  const folder = new URL("samples/", bundle);
  const response = await fetch(new URL("samples.json", folder));
  if (!response.ok) return;
  const samples = await response.json();
  const buttons = samples.map(({ file, caption, instruction }) => {
    const button = document.createElement("button");
    const image = Object.assign(new Image(), { src: new URL(file, folder), alt: caption });
    Object.assign(button, { type: "button", title: caption });
    button.append(image);
    button.addEventListener("click", () =>
      guarded(async () => {
        await choose(engine, await (await fetch(image.src)).blob());
        form.elements.instruction.value = instruction;
        button.setAttribute("aria-pressed", "true");
      }),
    );
    return button;
  });
  $("samples").replaceChildren(...buttons);
  await choose(engine, await (await fetch(new URL(samples[0].file, folder))).blob());
  form.elements.instruction.value = samples[0].instruction;
  buttons[0].setAttribute("aria-pressed", "true");
}

async function choose({ manifest }, file) {
  if (!file) return;
  running?.abort();
  await drawFitted($("before"), file, manifest.defaults.size, manifest.size_multiple);
  const { width, height } = $("before");
  Object.assign($("after"), { width, height }); // which clears it
  $("save").disabled = true;
  for (const button of $("samples").children) button.setAttribute("aria-pressed", "false");
  tell("Ready.");
}

function save() {
  const link = Object.assign(document.createElement("a"), { download: "edited.png", href: $("after").toDataURL() });
  link.click();
}

function tell(text, done = 0, total = 0) {
  $("status").textContent = text;
  $("status").classList.remove("error");
  $("progress").value = total ? done / total : 0;
}

async function guarded(work) {
  try {
    await work();
  } catch (error) {
    tell(error.message);
    $("status").classList.add("error");
    if (!(error instanceof BadInput)) throw error;
  }
}

function megabytes(bytes) {
  return (bytes / 1e6).toFixed(0);
}
