/** Uses the page of `ip2p-fast app` and prints what was seen, as JSON: node use_app.mjs '{"url": ..., ...}' */
import { readFileSync } from "node:fs";

import { browse } from "../browse.mjs";

const ACTIONS = {
  sample: (page, index) => page.locator("#samples button.thumbnail-item").nth(index).click(),
  upload: (page, path) => page.locator("#upload input[type=file]").setInputFiles(path),
  write: (page, id, text) => page.locator(`#${id}`).locator("textarea, input").first().fill(String(text)),
  number: async (page, id, value) => {
    const box = page.locator(`#${id} input[type=number]`);
    await box.fill(String(value));
    await box.blur();
  },
  value_is: (page, id, value) => page.waitForFunction(hasValue, [id, value]).then(() => null),
  choose: async (page, id, option) => {
    await page.locator(`#${id} input`).click();
    await page.getByRole("option", { name: option, exact: true }).click();
  },
  tick: (page, id) => page.locator(`#${id} input[type=checkbox]`).click(),
  open: (page, id) => page.locator(`#${id} button`).first().click(),
  press: (page, id) => page.locator(`#${id}`).click(),
  view: (page, name) => page.getByRole("tab", { name, exact: true }).click(),
  entry: (page, index) => page.locator("#history button.thumbnail-item").nth(index).click(),
  entries: (page) => page.locator("#history button.thumbnail-item").count(),
  entries_are: (page, count) => page.waitForFunction(hasEntries, count).then(() => null),
  enabled: (page, id) => page.locator(`#${id}`).isEnabled(),
  appear: (page, id) => page.locator(`#${id}`).waitFor(),
  wait: (page, id, text) => page.locator(`#${id}`).getByText(text).first().waitFor(),
  loaded_size: (page, id, width, height) => page.waitForFunction(hasAspect, [id, width / height]).then(() => null),
  paint: async (page, x, y, toX, toY) => {
    const canvas = page.locator("#painter canvas").first();
    await canvas.scrollIntoViewIfNeeded();
    const box = await settled(page, canvas);
    await page.mouse.move(box.x + x * box.width, box.y + y * box.height);
    await page.mouse.down();
    await page.mouse.move(box.x + toX * box.width, box.y + toY * box.height, { steps: 12 });
    await page.mouse.up();
  },
  click_at: async (page, id, x, y) => {
    const image = page.locator(`#${id} img`).first();
    const { width, height } = await image.boundingBox();
    await image.click({ position: { x: x * width, y: y * height } });
  },
  save: async (page, id) => {
    const [download] = await Promise.all([page.waitForEvent("download"), page.locator(`#${id}`).click()]);
    return { name: download.suggestedFilename(), bytes: readFileSync(await download.path()).toString("base64") };
  },
};

console.log(JSON.stringify(await browse(JSON.parse(process.argv[2]), ACTIONS)));

/** In the page: whether a control has this value. */
function hasValue([id, value]) {
  return document.querySelector(`#${id} textarea, #${id} input`)?.value === value;
}

/** In the page: whether the history has so many pictures. */
function hasEntries(count) {
  return document.querySelectorAll("#history button.thumbnail-item").length === count;
}

/** In the page: whether a picture of this aspect is shown. */
function hasAspect([id, aspect]) {
  const image = document.querySelector(`#${id} img`);
  return image?.complete && Math.abs(image.naturalWidth / image.naturalHeight - aspect) < 0.01;
}

/** Where an element lies once it moves no more: the painter takes its size when its picture has come. */
async function settled(page, element) {
  let before;
  for (let still = 0; still < 5; ) {
    const box = await element.boundingBox();
    still = before && JSON.stringify(box) === JSON.stringify(before) ? still + 1 : 0;
    before = box;
    await page.waitForTimeout(100);
  }
  return before;
}
