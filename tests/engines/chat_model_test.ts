import { assertEquals, assertNotEquals } from "@std/assert";
import { ChatProcess } from "../../docs/examples/chat/chat_process.ts";
import { tinyConfig, tinyDecoder } from "../../docs/examples/chat/tiny_model/tiny_decoder.ts";
import { tempDirectory } from "../support/temp_directory.ts";
import { Hub } from "./support/hub.ts";

const SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];
const MERGES = ["t h", "th e", "Ġ the"];
const TEMPLATE = "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + " +
  "message['content'] + '<|im_end|>' + '\n'}}{% endfor %}" +
  "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

/** The characters that byte-level tokenizers use for the 256 bytes. */
function byteCharacters(): string[] {
  let substitute = 256;
  return Array.from({ length: 256 }, (_, byte) => {
    const isPrintable = byte > 32 && byte < 127 || byte > 160 && byte !== 173;
    return String.fromCharCode(isPrintable ? byte : substitute++);
  });
}

/** The files of a published model: a decoder with external weights and a byte-level tokenizer. */
function tinyRepository(): Record<string, string | Uint8Array<ArrayBuffer>> {
  const merged = MERGES.map((pair) => pair.replace(" ", ""));
  const tokens = [...SPECIAL_TOKENS, ...byteCharacters(), ...merged];
  const options = {
    vocabulary: tokens.length,
    positions: 1024,
    externalName: "model_q4.onnx_data",
  };
  const { model, external = new Uint8Array() } = tinyDecoder(options);
  const byteLevel = {
    type: "ByteLevel",
    "add_prefix_space": false,
    "trim_offsets": true,
    "use_regex": true,
  };
  const tokenizer = {
    version: "1.0",
    "added_tokens": SPECIAL_TOKENS.map((content, id) => ({
      id,
      content,
      "single_word": false,
      lstrip: false,
      rstrip: false,
      normalized: false,
      special: true,
    })),
    normalizer: null,
    "pre_tokenizer": byteLevel,
    "post_processor": null,
    decoder: byteLevel,
    model: {
      type: "BPE",
      "unk_token": null,
      "continuing_subword_prefix": null,
      "end_of_word_suffix": null,
      vocab: Object.fromEntries(tokens.map((token, id) => [token, id])),
      merges: MERGES,
    },
  };
  const tokenizerConfig = {
    "bos_token": "<|im_start|>",
    "eos_token": "<|im_end|>",
    "chat_template": TEMPLATE,
    "tokenizer_class": "GPT2Tokenizer",
  };
  return {
    "README.md": "not needed",
    "config.json": JSON.stringify(tinyConfig(options, { begin: 1, end: 2 })),
    "generation_config.json": JSON.stringify({ "eos_token_id": 2 }),
    "tokenizer.json": JSON.stringify(tokenizer),
    "tokenizer_config.json": JSON.stringify(tokenizerConfig),
    "onnx/model.onnx": "larger weights, not needed",
    "onnx/model_q4.onnx": model,
    "onnx/model_q4.onnx_data": external,
  };
}

interface Message {
  readonly role: string;
  readonly content: string;
}

Deno.test("chat: --model downloads a model once, and its chats go on after a restart", async () => {
  await using hub = new Hub(tinyRepository());
  await using directory = await tempDirectory();
  const ask = async (messages: readonly Message[]) => {
    const args = [`--model=${hub.id}`, `--models=${directory.path}/models`];
    await using chat = await ChatProcess.start([...args, `--cache=${directory.path}/kv`], {
      HF_ENDPOINT: hub.endpoint,
    });
    assertEquals(chat.title.replace(/ on .*/, ""), "tiny");
    const response = await chat.post({ messages, "max_tokens": 20 });
    const { choices, usage, error } = await response.json();
    assertEquals(error, undefined);
    return { answer: choices[0].message as Message, usage };
  };

  const question = { role: "user", content: Array(520).fill("the").join(" ") };
  const first = await ask([question]);
  // <|im_start|> u s e r \n, one token for each word, <|im_end|> \n <|im_start|> a … t \n
  assertEquals(first.usage["prompt_tokens"], 6 + 520 + 13);
  assertEquals(first.usage["prompt_tokens_details"], { "cached_tokens": 0 });
  assertNotEquals(first.answer.content, "");
  assertEquals(
    hub.requests.toSorted(),
    [
      `/api/models/${hub.id}/tree/main`,
      ...[...hub.files.keys()].filter((path) => path !== "README.md" && path !== "onnx/model.onnx")
        .map((path) => `/${hub.id}/resolve/main/${path}`),
    ].toSorted(),
  );

  hub.requests.length = 0;
  const second = await ask([question, first.answer, { role: "user", content: "the end" }]);
  assertEquals(second.usage["prompt_tokens_details"], { "cached_tokens": 512 });
  assertEquals(hub.requests, [`/api/models/${hub.id}/tree/main`]);
});
