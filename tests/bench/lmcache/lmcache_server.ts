import { fromFileUrl } from "@std/path";

/** LMCache and its imports take some seconds to start, more on a cold disk. */
const START_MS = 120_000;
const program = fromFileUrl(new URL("serve.py", import.meta.url));

/** Answers of the program; each request has its own. */
interface Answer {
  readonly error?: string;
  readonly adapter?: number;
  readonly ms?: number;
  readonly done?: number;
}

/** A Python process that runs LMCache's adapters; see `serve.py`. */
export class LmcacheServer implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;
  readonly #requests: WritableStreamDefaultWriter<Uint8Array>;
  readonly #answers: AsyncIterator<string>;
  readonly #encoder = new TextEncoder();

  private constructor(child: Deno.ChildProcess) {
    this.#child = child;
    this.#requests = child.stdin.getWriter();
    this.#answers = linesOf(child.stdout);
  }

  /**
   * Starts it, with buffers for `count` objects.
   *
   * @throws {Error} If the Python has no LMCache, or the program fails.
   */
  static async start(python: string, count: number, objectBytes: number): Promise<LmcacheServer> {
    const child = new Deno.Command(python, {
      args: [program],
      stdin: "piped",
      stdout: "piped",
      stderr: "null",
    }).spawn();
    const timer = setTimeout(() => child.kill("SIGKILL"), START_MS);
    const server = new LmcacheServer(child);
    try {
      await server.call({ op: "buffers", count, bytes: objectBytes });
      return server;
    } catch (error) {
      await server[Symbol.asyncDispose]();
      throw error;
    } finally {
      clearTimeout(timer);
    }
  }

  /**
   * Sends a request and waits for its answer.
   *
   * @throws {Error} If the request fails, or the process has ended.
   */
  async call(request: Readonly<Record<string, unknown>>): Promise<Answer> {
    await this.#requests.write(this.#encoder.encode(`${JSON.stringify(request)}\n`));
    const { value } = await this.#answers.next();
    if (value === undefined) throw new Error(`LMCache's process ended during ${request["op"]}`);
    const answer = JSON.parse(value) as Answer;
    if (answer.error !== undefined) throw new Error(`LMCache: ${request["op"]}: ${answer.error}`);
    return answer;
  }

  /** Ends the process. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#requests.close().catch(() => {});
    await this.#answers.return?.();
    await this.#child.status;
  }
}

async function* linesOf(stream: ReadableStream<Uint8Array<ArrayBuffer>>): AsyncGenerator<string> {
  let text = "";
  for await (const part of stream.pipeThrough(new TextDecoderStream())) {
    const lines = (text + part).split("\n");
    text = lines.pop() ?? "";
    yield* lines;
  }
}
