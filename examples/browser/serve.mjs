/**
 * Serves the page and a bundle on this machine: node serve.mjs [BUNDLE] [--port 8000]
 *
 * Any static server does; this one also sends the two headers without which a browser gives WebAssembly one thread.
 */
import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { createServer } from "node:http";
import { extname, join, resolve, sep } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const TYPES = {
  ".html": "text/html; charset=utf-8",
  ".css": "text/css",
  ".mjs": "text/javascript",
  ".json": "application/json",
  ".wasm": "application/wasm",
  ".png": "image/png",
};
const EXAMPLES = fileURLToPath(new URL("..", import.meta.url));
const POCKET = join(EXAMPLES, "../ip2p_fast/pocket");

const { values, positionals } = parseArgs({
  options: { port: { type: "string", default: "8000" } },
  allowPositionals: true,
});
const folders = { examples: resolve(EXAMPLES), bundle: resolve(positionals[0] ?? POCKET) };
const server = createServer(answer).listen(Number(values.port), "127.0.0.1", () => {
  console.log(`http://127.0.0.1:${server.address().port}/examples/browser/?bundle=/bundle/`);
});

async function answer(request, response) {
  const file = await find(new URL(request.url, "http://localhost").pathname);
  if (!file) return response.writeHead(404).end("not found\n");
  response.writeHead(200, {
    "Content-Type": TYPES[extname(file.path)] ?? "application/octet-stream",
    "Content-Length": file.size,
    "Cache-Control": "no-cache",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
  });
  createReadStream(file.path).pipe(response);
}

/** The file of an address /examples/... or /bundle/..., never one outside these folders. */
async function find(address) {
  try {
    const [, mount, ...rest] = decodeURIComponent(address).split("/");
    const folder = folders[mount];
    const path = resolve(folder, ...rest, address.endsWith("/") ? "index.html" : "");
    if (!path.startsWith(folder + sep)) return null;
    const facts = await stat(path);
    return facts.isFile() ? { path, size: facts.size } : null;
  } catch {
    return null; // no such folder or file, or an address that is no text
  }
}
