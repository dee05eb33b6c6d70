import type { OnnxDecoder } from "@kvtier/kvtier/onnx";
import type { ChatFormat, ChatMessage } from "./chat_format.ts";
import { Conversations } from "./conversations.ts";
import { sample, type Sampling } from "./sampling.ts";

/** A request for an answer. */
export interface ChatRequest extends Sampling {
  readonly messages: readonly ChatMessage[];
  /** Maximum number of tokens of the answer. */
  readonly maxTokens: number;
  /** Cache salt of the user. */
  readonly salt: string;
  /** Aborts the answer. */
  readonly signal: AbortSignal;
}

/** The end of an answer, with token counts. */
export interface ChatEnd {
  readonly reason: "stop" | "length";
  readonly promptTokens: number;
  readonly cachedTokens: number;
  readonly answerTokens: number;
}

/** Thrown for a conversation that exceeds the model's context. */
export class TooLongError extends Error {
  override readonly name = "TooLongError";
}

/** Thrown if too many requests are waiting. */
export class BusyError extends Error {
  override readonly name = "BusyError";
}

/** Answers conversations sequentially with one decoder. */
export class ChatEngine {
  readonly conversations: Conversations;
  readonly #decoder: OnnxDecoder;
  readonly #format: ChatFormat;
  readonly #log: (line: string) => void;
  readonly #maxWaiting: number;
  #waiting = 0;
  #last: Promise<void> = Promise.resolve();

  /**
   * Answers with a decoder; at most `maxWaiting` requests wait for it. `log` receives a line for each
   * request: what the cache had of the prompt, and why not more.
   */
  constructor(
    decoder: OnnxDecoder,
    format: ChatFormat,
    log: (line: string) => void = () => {},
    maxWaiting = 16,
  ) {
    this.#decoder = decoder;
    this.#format = format;
    this.conversations = new Conversations(format.tokenizer);
    this.#log = log;
    this.#maxWaiting = maxWaiting;
  }

  /**
   * Yields the answer incrementally.
   *
   * @throws {BusyError} If too many requests are waiting.
   * @throws {TooLongError} If the conversation does not fit into the model's context.
   * @throws The reason of `request.signal` if it aborts before the answer begins.
   */
  async *answer(request: ChatRequest): AsyncGenerator<string, ChatEnd> {
    if (this.#waiting >= this.#maxWaiting) {
      throw new BusyError(`${this.#waiting} requests are already waiting: try again later`);
    }
    this.#waiting++;
    const { promise, resolve } = Promise.withResolvers<void>();
    const before = this.#last;
    this.#last = before.then(() => promise);
    try {
      await before;
      this.#waiting--;
      return yield* this.#answer(request);
    } finally {
      resolve();
    }
  }

  /** Resolves when no answer is in progress. */
  idle(): Promise<void> {
    return this.#last;
  }

  /** Tokens left for the answer after a prompt of at least `tokens` tokens. */
  #roomAfter(tokens: number): number {
    const { contextTokens } = this.#decoder;
    if (tokens < contextTokens) return contextTokens - tokens;
    throw new TooLongError(
      `Conversation must have fewer than the ${contextTokens} tokens of the context: received ` +
        `at least ${tokens}`,
    );
  }

  async *#answer(request: ChatRequest): AsyncGenerator<string, ChatEnd> {
    const { messages, maxTokens, salt, signal } = request;
    signal.throwIfAborted();
    const text = this.#format.render(messages);
    const known = this.conversations.find(salt, text);
    const { tokens = [], text: knownText = "" } = known ?? {};
    const rest = text.slice(knownText.length);
    // Tokenizing blocks the server, so it is not even tried if there are too many characters.
    this.#roomAfter(tokens.length + Math.ceil(rest.length / this.#format.maxTokenLength));
    const prompt = [...tokens, ...this.#format.encode(rest)];
    const room = this.#roomAfter(prompt.length);
    const first = await this.#decoder.prefill(prompt, { salt, signal });
    this.#log(first.explanation);
    let { logits } = first;
    const answer: number[] = [];
    let reason: ChatEnd["reason"] = "length";
    let shown = "";
    try {
      while (answer.length < Math.min(maxTokens, room) && !signal.aborted) {
        const token = sample(logits, request, Math.random);
        answer.push(token);
        if (this.#format.endTokens.has(token)) {
          reason = "stop";
          break;
        }
        const written = this.#format.decode(answer);
        // An incomplete character is completed by later bytes.
        if (!written.endsWith("\ufffd") && written.length > shown.length) {
          yield written.slice(shown.length);
          shown = written;
        }
        if (answer.length < Math.min(maxTokens, room)) logits = await this.#decoder.step(token);
      }
      const written = this.#format.decode(answer);
      if (written.length > shown.length) yield written.slice(shown.length);
    } finally {
      this.#decoder.save();
      const whole = text + this.#format.decode(answer, true);
      this.conversations.note(salt, { text: whole, tokens: [...prompt, ...answer] });
    }
    return {
      reason,
      promptTokens: prompt.length,
      cachedTokens: first.reusedTokens,
      answerTokens: answer.length,
    };
  }
}
