/**
 * Uses the page as a person would and prints what was seen, as JSON: node use_page.mjs '{"url": ..., ...}'
 *
 * noise  the file that is served as /noise.f32; the rest as of browse.mjs
 */
import { readFileSync } from "node:fs";

import { browse } from "../browse.mjs";

const ACTIONS = {
  sample: (page, caption) => page.getByAltText(caption).click(),
  file: (page, path) => page.setInputFiles("#file", path),
  write: (page, text) => page.fill("[name=instruction]", text),
  choose: (page, name, value) => page.selectOption(`[name=${name}]`, String(value)),
  slide: (page, name, value) => page.fill(`[name=${name}]`, String(value)),
  press: (page, id) => page.click(`#${id}`),
  press_once_told: (page, id, text) => page.evaluate(pressOnceTold, [id, text]),
  wait: (page, text) => page.waitForFunction((text) => document.getElementById("status").textContent.includes(text), text),
  picture: (page, name) => page.evaluate(pixelsOf, name),
  save: async (page) => {
    const [download] = await Promise.all([page.waitForEvent("download"), page.click("#save")]);
    return { name: download.suggestedFilename(), bytes: readFileSync(await download.path()).toString("base64") };
  },
  device: (page) => page.textContent("#device"),
};

const given = JSON.parse(process.argv[2]);
const isNoise = ({ pathname }) => pathname === "/noise.f32";
const told = [];
const seen = await browse(given, ACTIONS, async (page) => {
  if (given.noise) await page.route(isNoise, (route) => route.fulfill({ path: given.noise }));
  await page.exposeFunction("told", (text) => told.push(text));
  await page.addInitScript(() => {
    document.addEventListener("DOMContentLoaded", () => {
      const status = document.getElementById("status");
      new MutationObserver(() => window.told(status.textContent)).observe(status, { childList: true });
    });
  });
});
console.log(JSON.stringify({ ...seen, told }));

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
