import { assertEquals, assertRejects } from "@std/assert";
import { ChatEngine, TooLongError } from "../../../docs/examples/chat/chat_engine.ts";
import type { ChatFormat } from "../../../docs/examples/chat/chat_format.ts";
import type { OnnxDecoder } from "../../../src/engine/onnx/onnx_decoder.ts";

const CONTEXT_TOKENS = 100;
const MAX_TOKEN_LENGTH = 4;

Deno.test("ChatEngine: a conversation that cannot fit the context is refused, not tokenized", async () => {
  const encoded: number[] = [];
  const format: ChatFormat = {
    tokenizer: "letters",
    endTokens: new Set(),
    maxTokenLength: MAX_TOKEN_LENGTH,
    render: (messages) => messages.map(({ content }) => content).join(""),
    encode: (text) => {
      encoded.push(text.length);
      return Array(text.length).fill(0);
    },
    decode: () => "",
  };
  const decoder = { contextTokens: CONTEXT_TOKENS } as Partial<OnnxDecoder> as OnnxDecoder;
  const engine = new ChatEngine(decoder, format);
  const ask = (length: number): Promise<unknown> => {
    const messages = [{ role: "user", content: "x".repeat(length) }] as const;
    const { signal } = new AbortController();
    return engine.answer({ messages, maxTokens: 1, temperature: 0, topP: 1, salt: "", signal })
      .next();
  };
  await assertRejects(() => ask(16 * 2 ** 20), TooLongError, "the 100 tokens of the context");
  await assertRejects(() => ask(397), TooLongError, "at least 100");
  assertEquals(encoded, []);
  // Its tokens could be long enough.
  await assertRejects(() => ask(396), TooLongError, "at least 396");
  assertEquals(encoded, [396]);
});
