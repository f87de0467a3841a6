/** A bundle's folder: what its bundle.json says, and the files an edit reads. */
import { readFile, stat } from "node:fs/promises";
import { join } from "node:path";

import { BadInput } from "../shared/settings.mjs";

const SCHEMA = 1; // of bundle.json; a newer one may mean something else

/**
 * Reads the small files and checks the sizes of the large ones.
 *
 * @returns {Promise<object>} manifest, tables, tokenizer, tokenizerConfig: JSON; editGraph: the path of edit.onnx
 */
export async function openBundle(folder) {
  const manifest = await readJson(join(folder, "bundle.json"), "is it a bundle? `ip2p-fast export` makes one");
  if (!(manifest.schema <= SCHEMA)) {
    throw new BadInput(`${folder} is a bundle of schema ${manifest.schema}, and this program reads up to ${SCHEMA}`);
  }
  const graph = manifest.graphs?.edit;
  if (!graph) throw new BadInput(`${folder} has no edit graph; export the model again`);
  for (const file of [graph.file, ...graph.weights]) await requireSize(join(folder, file), manifest.files[file].bytes);
  const [tables, tokenizer, tokenizerConfig] = await Promise.all(
    ["tables.json", "tokenizer/tokenizer.json", "tokenizer/tokenizer_config.json"].map((file) =>
      readJson(join(folder, file), "the bundle is incomplete"),
    ),
  );
  return { manifest, tables, tokenizer, tokenizerConfig, editGraph: join(folder, graph.file) };
}

async function readJson(path, hint) {
  const text = await readFile(path, "utf8").catch(({ code }) => {
    throw new BadInput(`${path} cannot be read (${code}): ${hint}`);
  });
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new BadInput(`${path} is damaged: ${error.message}`);
  }
}

async function requireSize(path, bytes) {
  const found = await stat(path).then(({ size }) => size, () => "no");
  if (found !== bytes) throw new BadInput(`${path} has ${found} bytes, must have ${bytes}; copy the bundle again`);
}
