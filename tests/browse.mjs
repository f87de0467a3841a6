/**
 * A page in a headless Chromium, used as a person would: what the drivers of the tests have in common.
 *
 * chromium  the browser's path            url      the page's address
 * actions   what is done, in order, each [name, ...arguments] of the driver's own actions or the common ones below
 * profile   an empty folder for the browser
 */
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
const COMMON = {
  size: (page, width, height) => page.setViewportSize({ width, height }),
  overflow: (page) => page.evaluate(() => document.documentElement.scrollWidth - innerWidth),
  screenshot: async (page, path) => void (await page.screenshot({ path, fullPage: true })),
};

/**
 * Does the actions and tells what was seen: their results, the console's errors, and addresses beyond the page's host.
 * Actions are called with the page; `prepare` too, before the page is opened.
 */
export async function browse({ chromium: executablePath, url, actions, profile }, own, prepare = async () => {}) {
  const seen = { results: [], errors: [], elsewhere: [] };
  const context = await chromium.launchPersistentContext(profile, {
    executablePath,
    args: FLAGS,
    viewport: { width: 1280, height: 900 },
  });
  const { host } = new URL(url);
  const watch = (page) => {
    page.setDefaultTimeout(60_000);
    page.on("console", (message) => message.type() === "error" && seen.errors.push(message.text()));
    page.on("pageerror", (error) => seen.errors.push(error.message));
    page.on("request", (request) => {
      const asked = new URL(request.url());
      if (["http:", "https:", "ws:", "wss:"].includes(asked.protocol) && asked.host !== host) seen.elsewhere.push(asked.href);
    });
  };
  const tabs = context.pages();
  tabs.forEach(watch);
  const known = { ...COMMON, ...own };
  let page = tabs[0];
  try {
    await prepare(page);
    await page.goto(url);
    for (const [name, ...rest] of actions) {
      if (name === "new_tab") {
        tabs.push((page = await context.newPage()));
        watch(page);
        await page.goto(url);
      } else if (name === "tab") await (page = tabs[rest[0]]).bringToFront();
      else if (name === "close_tab") await page.close();
      else seen.results.push((await known[name](page, ...rest)) ?? null);
    }
  } finally {
    await context.close();
  }
  return seen;
}
