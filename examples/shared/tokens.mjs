/**
 * Texts to token ids, those of `ip2p_fast.tokenizer`. The one exception known: a byte order mark within a text, which
 * JavaScript takes for white space.
 */
import { Tokenizer } from "@huggingface/tokenizers";

/**
 * @param {object} tokenizer tokenizer/tokenizer.json of a bundle
 * @param {object} config tokenizer/tokenizer_config.json
 * @returns {(text: string) => {ids: BigInt64Array, cut: boolean}} ids [77]: start, text, end, padding; and whether some
 *   of the text did not fit
 */
export function tokenReader(tokenizer, config) {
  const reader = new Tokenizer(tokenizer, config);
  const [start, end, pad] = ["bos_token", "eos_token", "pad_token"].map((name) => {
    const token = config[name]?.content ?? config[name];
    const id = reader.token_to_id(token);
    if (id === undefined) throw new Error(`tokenizer.json has no token ${token}, the ${name} of tokenizer_config.json`);
    return BigInt(id);
  });
  const length = config.model_max_length;

  return (text) => {
    // JavaScript writes a small sigma differently at the end of a word; the model was trained without that rule.
    const words = reader.encode(text.replaceAll("Σ", "σ"), { add_special_tokens: false }).ids;
    const kept = words.slice(0, length - 2).map(BigInt);
    const ids = new BigInt64Array(length).fill(pad);
    ids.set([start, ...kept, end]);
    return { ids, cut: kept.length < words.length };
  };
}
