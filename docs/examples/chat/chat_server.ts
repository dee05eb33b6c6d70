import type { ChatMessage } from "./chat_format.ts";
import { BusyError, type ChatEnd, type ChatEngine, TooLongError } from "./chat_engine.ts";

/** Options of a {@linkcode ChatServer}. */
export interface ChatServerOptions {
  readonly engine: ChatEngine;
  /** Name of the model. */
  readonly model: string;
  /** The page to chat in. */
  readonly page: string;
  /** Accepted API keys; if empty, no key is required. */
  readonly apiKeys: readonly string[];
}

/** An error response. */
class HttpError extends Error {
  readonly status: number;

  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

const MAX_BODY_BYTES = 16 * 2 ** 20;

/** A part of the API of OpenAI: `/v1/models`, `/v1/chat/completions`. */
export class ChatServer {
  readonly #options: ChatServerOptions;
  /** Accepted values of the Host header. */
  #hosts: readonly string[] = [];
  /** Accepted keys as {@linkcode saltOf} derives them, whose comparison tells nothing of a key. */
  readonly #accepted: Promise<ReadonlySet<string>>;
  readonly #stopping = new AbortController();

  constructor(options: ChatServerOptions) {
    this.#options = options;
    this.#accepted = Promise.all(options.apiKeys.map(saltOf)).then((salts) => new Set(salts));
  }

  /** Ends the answers in progress after the current token and refuses those that wait. */
  stop(): void {
    this.#stopping.abort(new Error("The server is stopping: try again when it has restarted"));
  }

  /** Sets the port in accepted Host headers. */
  serves(port: number): void {
    this.#hosts = ["localhost", "127.0.0.1", "[::1]"].map((name) => `${name}:${port}`);
  }

  /** Handles a request. */
  readonly handle = async (request: Request): Promise<Response> => {
    try {
      return await this.#route(request);
    } catch (error) {
      const { status, body } = errorOf(error);
      return Response.json(body, { status });
    }
  };

  async #route(request: Request): Promise<Response> {
    const { pathname } = new URL(request.url);
    this.#checkOrigin(request);
    switch (`${request.method} ${pathname}`) {
      case "GET /":
        return new Response(this.#options.page, {
          headers: {
            "content-type": "text/html; charset=utf-8",
            "content-security-policy": "default-src 'self' 'unsafe-inline'",
          },
        });
      case "GET /v1/models":
        await this.#saltOf(request);
        return Response.json({
          object: "list",
          data: [{ id: this.#options.model, object: "model", created: 0, "owned_by": "kvtier" }],
        });
      case "POST /v1/chat/completions":
        return await this.#complete(request, await this.#saltOf(request));
    }
    throw new HttpError(404, `There is no ${request.method} ${pathname}`);
  }

  /** Rejects requests from pages of other sites and DNS rebinding. */
  #checkOrigin(request: Request): void {
    const hosts = this.#hosts;
    const host = request.headers.get("host") ?? "";
    if (!hosts.includes(host)) throw new HttpError(403, `Host must be one of ${hosts.join(", ")}`);
    const origin = request.headers.get("origin");
    if (origin !== null && !hosts.some((host) => origin === `http://${host}`)) {
      throw new HttpError(403, "Origin must be this server");
    }
  }

  /** Derives a cache salt from the API key, which is not stored. */
  async #saltOf(request: Request): Promise<string> {
    const key = /^Bearer (.+)$/.exec(request.headers.get("authorization") ?? "")?.[1];
    const salt = key === undefined ? "" : await saltOf(key);
    const accepted = await this.#accepted;
    if (accepted.size > 0 && !accepted.has(salt)) {
      throw new HttpError(401, "Authorization must be Bearer followed by an accepted key");
    }
    return salt;
  }

  async #complete(request: Request, salt: string): Promise<Response> {
    const body = await readJson(request);
    const { model } = this.#options;
    const messages = messagesOf(body["messages"]);
    const maxTokens = body["max_completion_tokens"] ?? body["max_tokens"];
    const gone = new AbortController();
    const answer = this.#options.engine.answer({
      messages,
      maxTokens: numberIn("max_tokens", maxTokens, { min: 1, max: 2 ** 20, default: 512 }),
      temperature: numberIn("temperature", body["temperature"], { min: 0, max: 2, default: 0 }),
      topP: numberIn("top_p", body["top_p"], { min: 0, max: 1, default: 1 }),
      salt,
      signal: AbortSignal.any([request.signal, gone.signal, this.#stopping.signal]),
    });
    const id = `chatcmpl-${crypto.randomUUID()}`;
    const created = Math.floor(Date.now() / 1000);
    if (body["stream"] !== true) {
      let content = "";
      let step = await answer.next();
      for (; !step.done; step = await answer.next()) content += step.value;
      const choice = {
        index: 0,
        message: { role: "assistant", content },
        "finish_reason": step.value.reason,
      };
      return Response.json({
        id,
        object: "chat.completion",
        created,
        model,
        choices: [choice],
        usage: usageOf(step.value),
      });
    }
    const { include_usage: wantsUsage } = (body["stream_options"] ?? {}) as Record<string, unknown>;
    const event = (data: object): Uint8Array =>
      new TextEncoder().encode(`data: ${JSON.stringify(data)}\n\n`);
    const chunk = (fields: object): object => ({
      id,
      object: "chat.completion.chunk",
      created,
      model,
      ...fields,
    });
    const delta = (delta: object, reason: string | null): object =>
      chunk({ choices: [{ index: 0, delta, "finish_reason": reason }] });
    // Waits for the first part, so that errors of the request get an error status.
    let step = await answer.next();
    const stream = new ReadableStream<Uint8Array>({
      // Does not wait for the client: one that stops reading must not hold up the others.
      async start(controller) {
        const send = (data: object): void => {
          if (!gone.signal.aborted) controller.enqueue(event(data));
        };
        send(delta({ role: "assistant", content: "" }, null));
        try {
          for (; !step.done; step = await answer.next()) {
            send(delta({ content: step.value }, null));
          }
          send(delta({}, step.value.reason));
          if (wantsUsage === true) send(chunk({ choices: [], usage: usageOf(step.value) }));
        } catch (error) {
          send(errorOf(error).body);
        }
        if (gone.signal.aborted) return;
        controller.enqueue(new TextEncoder().encode("data: [DONE]\n\n"));
        controller.close();
      },
      cancel() {
        gone.abort(new Error("The client disconnected"));
      },
    });
    return new Response(stream, { headers: { "content-type": "text/event-stream" } });
  }
}

function usageOf({ promptTokens, cachedTokens, answerTokens }: ChatEnd): object {
  return {
    "prompt_tokens": promptTokens,
    "completion_tokens": answerTokens,
    "total_tokens": promptTokens + answerTokens,
    "prompt_tokens_details": { "cached_tokens": cachedTokens },
  };
}

async function saltOf(key: string): Promise<string> {
  const bytes = new TextEncoder().encode(`kvtier chat ${key}`);
  return new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)).toHex().slice(0, 32);
}

function errorOf(error: unknown): { status: number; body: object } {
  const status = error instanceof HttpError
    ? error.status
    : error instanceof TooLongError
    ? 400
    : error instanceof BusyError
    ? 429
    : 500;
  const message = error instanceof Error ? error.message : String(error);
  const type = status < 500 ? "invalid_request_error" : "server_error";
  return { status, body: { error: { message, type } } };
}

/** Reads a body up to the limit: one that is sent in chunks names no length. */
async function readText(request: Request): Promise<string> {
  const parts: Uint8Array<ArrayBuffer>[] = [];
  let byteLength = 0;
  for await (const part of request.body ?? []) {
    byteLength += part.byteLength;
    if (byteLength > MAX_BODY_BYTES) throw tooLarge();
    parts.push(part);
  }
  return await new Blob(parts).text();
}

function tooLarge(): HttpError {
  return new HttpError(413, `Body must have at most ${MAX_BODY_BYTES} bytes`);
}

async function readJson(request: Request): Promise<Record<string, unknown>> {
  if (Number(request.headers.get("content-length") ?? 0) > MAX_BODY_BYTES) {
    throw tooLarge();
  }
  const text = await readText(request);
  try {
    const body: unknown = JSON.parse(text);
    if (typeof body === "object" && body !== null) return body as Record<string, unknown>;
  } catch {
    // Reported below.
  }
  throw new HttpError(400, "Body must be a JSON object");
}

function messagesOf(value: unknown): ChatMessage[] {
  if (!Array.isArray(value) || value.length === 0) {
    throw new HttpError(400, "messages must be an array of at least one message");
  }
  return value.map((message, i) => {
    const { role, content } = (message ?? {}) as Record<string, unknown>;
    if (role !== "system" && role !== "user" && role !== "assistant") {
      throw new HttpError(400, `messages[${i}].role must be system, user or assistant`);
    }
    const text = typeof content === "string" ? content : textOf(content);
    if (text !== undefined) return { role, content: text };
    throw new HttpError(400, `messages[${i}].content must be a string or an array of text parts`);
  });
}

function textOf(parts: unknown): string | undefined {
  if (!Array.isArray(parts)) return undefined;
  const strings = parts.map((part) => (part as { text?: unknown } | null)?.text);
  return strings.every((text) => typeof text === "string") ? strings.join("") : undefined;
}

function numberIn(
  name: string,
  value: unknown,
  { min, max, default: usual }: { min: number; max: number; default: number },
): number {
  if (value === undefined || value === null) return usual;
  if (typeof value === "number" && value >= min && value <= max) return value;
  throw new HttpError(400, `${name} must be a number from ${min} to ${max}`);
}
