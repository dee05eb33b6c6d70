import { Template } from "npm:@huggingface/jinja@0.5.11";
import { Tokenizer } from "npm:@huggingface/tokenizers@0.2.0";

/** One message of a conversation. */
export interface ChatMessage {
  readonly role: "system" | "user" | "assistant";
  readonly content: string;
}

/** How a model reads and writes conversations. */
export interface ChatFormat {
  /** Tokens that end an answer. */
  readonly endTokens: ReadonlySet<number>;
  /** A conversation as the model was trained to read it, up to where its answer begins. */
  render(messages: readonly ChatMessage[]): string;
  /** Token ids of a rendered conversation. */
  encode(text: string): number[];
  /** Text of token ids; with `special`, also that of tokens that stand for no text. */
  decode(tokens: readonly number[], special?: boolean): string;
}

/** The files of a model that say how it reads and writes. */
export interface FormatFiles {
  /** `tokenizer.json` */
  readonly tokenizer: object;
  /** `tokenizer_config.json` */
  readonly tokenizerConfig: Readonly<Record<string, unknown>>;
  /** `chat_template.jinja`, where the template is not in `tokenizer_config.json`. */
  readonly template?: string;
  /** Ids of the tokens that end an answer. */
  readonly endTokens: readonly number[];
}

/**
 * The format of a model from Hugging Face.
 *
 * @throws {Error} If it has no chat template.
 */
export function huggingFaceFormat(files: FormatFiles): ChatFormat {
  const { tokenizerConfig, endTokens } = files;
  const source = files.template ?? tokenizerConfig["chat_template"];
  if (typeof source !== "string") {
    throw new Error("Model must have a chat template, in tokenizer_config.json or in a file");
  }
  const template = new Template(source);
  const tokenizer = new Tokenizer(files.tokenizer, tokenizerConfig);
  const textOf = (name: string): string => {
    const token = tokenizerConfig[name] as string | { content?: string } | null | undefined;
    return typeof token === "string" ? token : token?.content ?? "";
  };
  const special = { "bos_token": textOf("bos_token"), "eos_token": textOf("eos_token") };
  return {
    endTokens: new Set(endTokens),
    render: (messages) => template.render({ ...special, messages, "add_generation_prompt": true }),
    // The template has written the special tokens.
    encode: (text) => tokenizer.encode(text, { add_special_tokens: false }).ids,
    decode: (tokens, special = false) =>
      tokenizer.decode([...tokens], {
        skip_special_tokens: !special,
        clean_up_tokenization_spaces: false,
      }),
  };
}

/** The format of a model whose tokens are bytes, with ids from 3 on. */
export function byteFormat(): ChatFormat {
  const [END, OFFSET] = [2, 3];
  return {
    endTokens: new Set([END]),
    render: (messages) =>
      messages.map(({ role, content }) => `${role}: ${content}\n`).join("") + "assistant: ",
    encode: (text) => Array.from(new TextEncoder().encode(text), (byte) => byte + OFFSET),
    decode: (tokens) => {
      const bytes = tokens.filter((token) => token >= OFFSET).map((token) => token - OFFSET);
      return new TextDecoder().decode(Uint8Array.from(bytes));
    },
  };
}
