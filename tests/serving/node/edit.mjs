// node edit.mjs URL PICTURE: edits the picture through the openai package, whole and streamed, and prints what came.
import { createReadStream } from "node:fs";
import OpenAI, { toFile } from "openai";

const [url, picture] = process.argv.slice(2);
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 });
const image = () => toFile(createReadStream(picture), "picture.png", { type: "image/png" });
const edit = { prompt: "make it night", seed: 7, num_inference_steps: 4 };

const whole = await client.images.edit({ ...edit, image: await image(), n: 2 });
const kinds = [];
let streamed;
for await (const event of await client.images.edit({ ...edit, image: await image(), stream: true, partial_images: 1 })) {
  kinds.push(event.type);
  streamed = event.b64_json;
}
const refused = await client.images.edit({ ...edit, image: await image(), size: "large" }).catch((error) => error);
console.log(JSON.stringify({
  seeds: whole.data.map(({ seed }) => seed),
  alike: whole.data[0].b64_json === streamed,
  kinds,
  refused: [refused.constructor.name, refused.status, refused.param],
}));
