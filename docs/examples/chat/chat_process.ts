import { fromFileUrl } from "@std/path";

const ROOT = fromFileUrl(new URL("../../../", import.meta.url));

/** A chat server in a separate process. */
export class ChatProcess implements AsyncDisposable {
  /** The model and its execution provider. */
  readonly title: string;
  readonly port: number;
  readonly #process: Deno.ChildProcess;
  readonly #said: Promise<void>;

  private constructor(
    process: Deno.ChildProcess,
    said: Promise<void>,
    { title, port }: { title: string; port: number },
  ) {
    this.#process = process;
    this.#said = said;
    this.title = title;
    this.port = port;
  }

  /**
   * Starts a server on a free port and waits until it is ready.
   *
   * @param args Command-line arguments of `main.ts`.
   * @throws {Error} If the process ends instead; the message is its output.
   */
  static async start(
    args: readonly string[],
    env: Readonly<Record<string, string>> = {},
  ): Promise<ChatProcess> {
    const process = new Deno.Command(Deno.execPath(), {
      args: ["task", "--quiet", "chat", ...args, "--port=0"],
      cwd: ROOT,
      env: { ...env, NO_COLOR: "1" },
      stdin: "null",
      stdout: "null",
      stderr: "piped",
    }).spawn();
    const { promise, resolve, reject } = Promise.withResolvers<{ title: string; port: number }>();
    const said = (async () => {
      let text = "";
      for await (const part of process.stderr.pipeThrough(new TextDecoderStream())) {
        text += part;
        const found = /^(.+) answers at http:\/\/localhost:(\d+)$/m.exec(text);
        if (found !== null) resolve({ title: found[1] ?? "", port: Number(found[2]) });
      }
      reject(new Error(text));
    })();
    return new ChatProcess(process, said, await promise);
  }

  /** Requests a path. */
  fetch(path: string, init: RequestInit = {}): Promise<Response> {
    return fetch(`http://localhost:${this.port}${path}`, init);
  }

  /** Requests the next message of a conversation. */
  post(body: unknown, init: RequestInit = {}): Promise<Response> {
    const method = "POST";
    return this.fetch("/v1/chat/completions", { method, body: JSON.stringify(body), ...init });
  }

  /**
   * Stops it like Ctrl+C.
   *
   * @throws {Error} If it exits with an error.
   */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#process.kill("SIGINT");
    const { code } = await this.#process.status;
    await this.#said;
    if (code !== 0) throw new Error(`The chat server failed with exit code ${code}`);
  }
}
