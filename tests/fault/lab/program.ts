import { fromFileUrl } from "@std/path";

const project = fromFileUrl(new URL("../../../", import.meta.url));

/** A lab program that works until its stdin ends, and then prints its result. */
export class LabProgram implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;
  readonly #input: WritableStreamDefaultWriter<Uint8Array>;
  readonly #ready = Promise.withResolvers<void>();
  readonly #read: Promise<void>;
  #last = "";

  private constructor(child: Deno.ChildProcess) {
    this.#child = child;
    this.#input = child.stdin.getWriter();
    this.#read = this.#readLines();
  }

  /** Starts a program with its options as JSON and waits for its first line: it is ready. */
  static async start(
    program: URL,
    options: unknown,
    flags: readonly string[] = [],
  ): Promise<LabProgram> {
    const args = ["run", "-q", "-A", ...flags, fromFileUrl(program), JSON.stringify(options)];
    const started = new LabProgram(
      new Deno.Command(Deno.execPath(), { args, cwd: project, stdin: "piped", stdout: "piped" })
        .spawn(),
    );
    await started.#ready.promise;
    return started;
  }

  /** Parses its last line so far as JSON. */
  get lastLine(): unknown {
    return JSON.parse(this.#last);
  }

  /** Stops it and parses its last line as JSON. */
  async stop(): Promise<unknown> {
    await this.#input.close().catch(() => {});
    return await this.result();
  }

  /** Waits until it has ended and parses its last line as JSON. */
  async result(): Promise<unknown> {
    const [{ success, code }] = await Promise.all([this.#child.status, this.#read]);
    if (!success) throw new Error(`The program failed with ${code}`);
    return this.lastLine;
  }

  /** Suspends it like Ctrl-Z: it keeps its locks and files. */
  suspend(): void {
    this.#child.kill("SIGSTOP");
  }

  /** Kills it unless it has ended. */
  async kill(): Promise<void> {
    try {
      this.#child.kill("SIGKILL");
    } catch (error) {
      if (!(error instanceof TypeError)) throw error;
    }
    await this.#child.status;
    await this.#read;
    await this.#input.abort().catch(() => {});
  }

  /** Kills it unless it has ended. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.kill();
  }

  async #readLines(): Promise<void> {
    let rest = "";
    for await (const text of this.#child.stdout.pipeThrough(new TextDecoderStream())) {
      const lines = (rest + text).split("\n");
      rest = lines.pop() ?? "";
      this.#last = lines.at(-1) ?? this.#last;
      if (this.#last !== "") this.#ready.resolve();
    }
    this.#ready.reject(new Error("The program ended before it was ready"));
    this.#ready.promise.catch(() => {});
  }
}

/** Prints a line of JSON for the parent process. */
export async function say(line: unknown): Promise<void> {
  await Deno.stdout.write(new TextEncoder().encode(`${JSON.stringify(line)}\n`));
}

/** Aborts when the parent process stops this program. */
export function stopSignal(): AbortSignal {
  const stop = new AbortController();
  const wait = async (): Promise<void> => {
    for await (const _ of Deno.stdin.readable);
    stop.abort();
  };
  void wait();
  return stop.signal;
}
