/**
 * Uses the page as a person would and prints what was seen, as JSON: node use_page.mjs '{"url": ..., ...}'
 *
 * chromium  the browser's path            url      the page's address
 * actions   what is done, in order, each [name, ...arguments] of ACTIONS below
 * noise     the file that is served as /noise.f32
 * profile   an empty folder for the browser
 */
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const { chromium } = createRequire(`${process.cwd()}/browser/`)("playwright-core");
const FLAGS = [
  "--headless",
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];
const ACTIONS = {
  size: (width, height) => page.setViewportSize({ width, height }),
  sample: (caption) => page.getByAltText(caption).click(),
  file: (path) => page.setInputFiles("#file", path),
  write: (text) => page.fill("[name=instruction]", text),
  choose: (name, value) => page.selectOption(`[name=${name}]`, String(value)),
  slide: (name, value) => page.fill(`[name=${name}]`, String(value)),
  press: (id) => page.click(`#${id}`),
  press_once_told: (id, text) => page.evaluate(pressOnceTold, [id, text]),
  wait: (text) => page.waitForFunction((text) => document.getElementById("status").textContent.includes(text), text),
  picture: (name) => page.evaluate(pixelsOf, name),
  save: async () => {
    const [download] = await Promise.all([page.waitForEvent("download"), page.click("#save")]);
    return { name: download.suggestedFilename(), bytes: readFileSync(await download.path()).toString("base64") };
  },
  overflow: () => page.evaluate(() => document.documentElement.scrollWidth - innerWidth),
  screenshot: (path) => page.screenshot({ path, fullPage: true }),
  device: () => page.textContent("#device"),
};

const given = JSON.parse(process.argv[2]);
const seen = { results: [], told: [], errors: [] };
const context = await chromium.launchPersistentContext(given.profile, {
  executablePath: given.chromium,
  args: FLAGS,
  viewport: { width: 1280, height: 900 },
});
const [page] = context.pages();
page.setDefaultTimeout(60_000);
page.on("console", (message) => message.type() === "error" && seen.errors.push(message.text()));
page.on("pageerror", (error) => seen.errors.push(error.message));
const isNoise = ({ pathname }) => pathname === "/noise.f32";
if (given.noise) await page.route(isNoise, (route) => route.fulfill({ path: given.noise }));
await page.exposeFunction("told", (text) => seen.told.push(text));
await page.addInitScript(() => {
  document.addEventListener("DOMContentLoaded", () => {
    const status = document.getElementById("status");
    new MutationObserver(() => window.told(status.textContent)).observe(status, { childList: true });
  });
});
try {
  await page.goto(given.url);
  for (const [name, ...rest] of given.actions) seen.results.push((await ACTIONS[name](...rest)) ?? null);
} finally {
  await context.close();
}
console.log(JSON.stringify(seen));

/** In the page: a canvas's sides and its bytes, [height, width, 4]. */
function pixelsOf(name) {
  const canvas = document.getElementById(name);
  const { width, height } = canvas;
  return { width, height, pixels: [...canvas.getContext("2d").getImageData(0, 0, width, height).data] };
}

/** In the page: no pause between the text and the press. */
function pressOnceTold([id, text]) {
  const status = document.getElementById("status");
  const observer = new MutationObserver(() => {
    if (status.textContent !== text) return;
    observer.disconnect();
    document.getElementById(id).click();
  });
  observer.observe(status, { childList: true });
}
