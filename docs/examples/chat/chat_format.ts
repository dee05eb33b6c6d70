import { createHash } from "node:crypto";
import { Template } from "npm:@huggingface/jinja@0.5.11";
import { Tokenizer } from "npm:@huggingface/tokenizers@0.2.0";

/** One message of a conversation. */
export interface ChatMessage {
  readonly role: "system" | "user" | "assistant";
  readonly content: string;
}

/** Encodes and decodes conversations for a model. */
export interface ChatFormat {
  /** Identifies the tokenizer by its content. */
  readonly tokenizer: string;
  /** Tokens that end an answer. */
  readonly endTokens: ReadonlySet<number>;
  /** Length of the longest token, in characters. A longer string has several tokens. */
  readonly maxTokenLength: number;
  /** Renders a conversation in the model's training format, up to the start of its answer. */
  render(messages: readonly ChatMessage[]): string;
  /** Tokenizes a rendered conversation. */
  encode(text: string): number[];
  /** Decodes token ids; with `special`, includes special tokens. */
  decode(tokens: readonly number[], special?: boolean): string;
}

/** The files of a model that define its format. */
export interface FormatFiles {
  /** `tokenizer.json` */
  readonly tokenizer: object;
  /** `tokenizer_config.json` */
  readonly tokenizerConfig: Readonly<Record<string, unknown>>;
  /** `chat_template.jinja`, if the template is not in `tokenizer_config.json`. */
  readonly template?: string;
  /** Ids of the tokens that end an answer. */
  readonly endTokens: readonly number[];
}

/**
 * Creates the format of a Hugging Face model.
 *
 * @throws {Error} If it has no chat template.
 */
export function huggingFaceFormat(files: FormatFiles): ChatFormat {
  const { tokenizerConfig, endTokens } = files;
  const source = files.template ?? tokenizerConfig["chat_template"];
  if (typeof source !== "string") {
    throw new Error(
      "Model must have a chat template in tokenizer_config.json or chat_template.jinja",
    );
  }
  const template = new Template(source);
  const tokenizer = new Tokenizer(files.tokenizer, tokenizerConfig);
  const textOf = (name: string): string => {
    const token = tokenizerConfig[name] as string | { content?: string } | null | undefined;
    return typeof token === "string" ? token : token?.content ?? "";
  };
  const special = { "bos_token": textOf("bos_token"), "eos_token": textOf("eos_token") };
  return {
    tokenizer: createHash("sha256").update(JSON.stringify(files.tokenizer)).digest("hex"),
    endTokens: new Set(endTokens),
    maxTokenLength: longestToken(files.tokenizer),
    render: (messages) => template.render({ ...special, messages, "add_generation_prompt": true }),
    // The template has already added the special tokens.
    encode: (text) => tokenizer.encode(text, { add_special_tokens: false }).ids,
    decode: (tokens, special = false) =>
      tokenizer.decode([...tokens], {
        skip_special_tokens: !special,
        clean_up_tokenization_spaces: false,
      }),
  };
}

/** Length of the longest token of a `tokenizer.json`, whose vocabulary is a map or a list of pairs. */
function longestToken(tokenizer: object): number {
  const { model: { vocab }, "added_tokens": added = [] } = tokenizer as {
    readonly model: { readonly vocab: object | readonly (readonly [string, number])[] };
    readonly "added_tokens"?: readonly { readonly content: string }[];
  };
  const vocabulary = Array.isArray(vocab) ? vocab.map(([token]) => token) : Object.keys(vocab);
  return [...vocabulary, ...added.map(({ content }) => content)]
    .reduce((longest, { length }) => Math.max(longest, length), 1);
}

/** The format of a model with byte tokens, whose ids start at 3. */
export function byteFormat(): ChatFormat {
  const [END, OFFSET] = [2, 3];
  return {
    tokenizer: "bytes",
    endTokens: new Set([END]),
    maxTokenLength: 1,
    render: (messages) =>
      messages.map(({ role, content }) => `${role}: ${content}\n`).join("") + "assistant: ",
    encode: (text) => Array.from(new TextEncoder().encode(text), (byte) => byte + OFFSET),
    decode: (tokens) => {
      const bytes = tokens.filter((token) => token >= OFFSET).map((token) => token - OFFSET);
      return new TextDecoder().decode(Uint8Array.from(bytes));
    },
  };
}
