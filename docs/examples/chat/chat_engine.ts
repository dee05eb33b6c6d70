import type { OnnxDecoder } from "@kvtier/kvtier/onnx";
import type { ChatFormat, ChatMessage } from "./chat_format.ts";
import { Conversations } from "./conversations.ts";
import { sample, type Sampling } from "./sampling.ts";

/** What is to be answered. */
export interface ChatRequest extends Sampling {
  readonly messages: readonly ChatMessage[];
  /** Most tokens of the answer. */
  readonly maxTokens: number;
  /** Whose conversation it is. */
  readonly salt: string;
  /** Ends the answer early. */
  readonly signal: AbortSignal;
}

/** How an answer ended. */
export interface ChatEnd {
  readonly reason: "stop" | "length";
  readonly promptTokens: number;
  readonly cachedTokens: number;
  readonly answerTokens: number;
}

/** A conversation that the model cannot read. */
export class TooLongError extends Error {
  override readonly name = "TooLongError";
}

/** More requests wait than may. */
export class BusyError extends Error {
  override readonly name = "BusyError";
}

/** Answers conversations with one decoder, one after another. */
export class ChatEngine {
  readonly conversations = new Conversations();
  readonly #decoder: OnnxDecoder;
  readonly #format: ChatFormat;
  readonly #mostWaiting: number;
  #waiting = 0;
  #last: Promise<void> = Promise.resolve();

  /** Answers with a decoder; at most `mostWaiting` requests wait for it. */
  constructor(decoder: OnnxDecoder, format: ChatFormat, mostWaiting = 16) {
    this.#decoder = decoder;
    this.#format = format;
    this.#mostWaiting = mostWaiting;
  }

  /**
   * Yields the answer piece by piece.
   *
   * @throws {BusyError} If too many requests wait.
   * @throws {TooLongError} If the conversation does not fit into the model's context.
   * @throws The reason of `request.signal`, if that aborts before the answer begins.
   */
  async *answer(request: ChatRequest): AsyncGenerator<string, ChatEnd> {
    if (this.#waiting >= this.#mostWaiting) {
      throw new BusyError(`${this.#waiting} requests wait already: try again later`);
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

  /** Resolves when no answer is being written. */
  idle(): Promise<void> {
    return this.#last;
  }

  async *#answer(request: ChatRequest): AsyncGenerator<string, ChatEnd> {
    const { messages, maxTokens, salt, signal } = request;
    signal.throwIfAborted();
    const text = this.#format.render(messages);
    const known = this.conversations.find(salt, text);
    const prompt = known === undefined
      ? this.#format.encode(text)
      : [...known.tokens, ...this.#format.encode(text.slice(known.text.length))];
    const room = this.#decoder.contextTokens - prompt.length;
    if (room < 1) {
      throw new TooLongError(
        `Conversation must have fewer than the ${this.#decoder.contextTokens} tokens of the ` +
          `context: received ${prompt.length}`,
      );
    }
    const first = await this.#decoder.prefill(prompt, { salt, signal });
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
        // Behind an incomplete character more bytes will come.
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
