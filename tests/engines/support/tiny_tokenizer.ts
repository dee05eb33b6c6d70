import { join } from "@std/path";

/** Writes a tokenizer with a token for each character, and a chat template, into a model directory. */
export async function writeTinyTokenizer(directory: string): Promise<void> {
  const characters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ .,?\n:";
  const tokens = ["<unk>", ...characters, "<1>", "<2>", "<3>", "<4>", "<end>"];
  const special = ["<unk>", "<end>"].map((content) => ({
    id: tokens.indexOf(content),
    content,
    special: true,
    "single_word": false,
    lstrip: false,
    rstrip: false,
    normalized: false,
  }));
  const tokenizer = {
    version: "1.0",
    "added_tokens": special,
    normalizer: null,
    "pre_tokenizer": null,
    "post_processor": null,
    decoder: { type: "Fuse" },
    model: {
      type: "BPE",
      "unk_token": "<unk>",
      vocab: Object.fromEntries(tokens.map((token, id) => [token, id])),
      merges: [],
    },
  };
  const config = {
    "tokenizer_class": "PreTrainedTokenizer",
    "eos_token": "<end>",
    "unk_token": "<unk>",
    "chat_template": "{% for message in messages %}{{ message['role'] }}: " +
      "{{ message['content'] }}{{ eos_token }}{% endfor %}" +
      "{% if add_generation_prompt %}assistant: {% endif %}",
  };
  await Deno.writeTextFile(join(directory, "tokenizer.json"), JSON.stringify(tokenizer));
  await Deno.writeTextFile(join(directory, "tokenizer_config.json"), JSON.stringify(config));
}
