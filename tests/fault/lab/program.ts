import { fromFileUrl } from "@std/path";

const project = fromFileUrl(new URL("../../../", import.meta.url));

/** A program of the lab that works until its input ends, and then says what came of it. */
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

  /** Starts one with its options as JSON, and waits for its first line: it is ready. */
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

  /** Its last line so far, as JSON. */
  get lastLine(): unknown {
    return JSON.parse(this.#last);
  }

  /** Tells it to stop; returns its last line, as JSON. */
  async stop(): Promise<unknown> {
    await this.#input.close().catch(() => {});
    return await this.result();
  }

  /** Waits until it ends; returns its last line, as JSON. */
  async result(): Promise<unknown> {
    const [{ success, code }] = await Promise.all([this.#child.status, this.#read]);
    if (!success) throw new Error(`The program failed with ${code}`);
    return this.lastLine;
  }

  /** Stops it, as Ctrl-Z does: it does nothing, and keeps what it has. */
  suspend(): void {
    this.#child.kill("SIGSTOP");
  }

  /** Kills it, if it has not ended. */
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

  /** Kills it, if it has not ended. */
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

/** Says something to the one who started this program. */
export async function say(line: unknown): Promise<void> {
  await Deno.stdout.write(new TextEncoder().encode(`${JSON.stringify(line)}\n`));
}

/** Aborts when this program is told to stop. */
export function stopSignal(): AbortSignal {
  const stop = new AbortController();
  const wait = async (): Promise<void> => {
    for await (const _ of Deno.stdin.readable);
    stop.abort();
  };
  void wait();
  return stop.signal;
}
