import { fromFileUrl } from "@std/path";
import type { WriterOptions } from "./writer_options.ts";

const program = fromFileUrl(new URL("./writer.ts", import.meta.url));
const project = fromFileUrl(new URL("../../../", import.meta.url));

/** A process that stores objects. */
export class WriterProcess implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;
  readonly #input: WritableStreamDefaultWriter<Uint8Array>;
  readonly #ready = Promise.withResolvers<void>();
  readonly #acknowledged = Promise.withResolvers<void>();
  readonly #read: Promise<void>;
  readonly #lines: string[] = [];

  private constructor(child: Deno.ChildProcess) {
    this.#child = child;
    this.#input = child.stdin.getWriter();
    this.#read = this.#readLines();
  }

  /** Starts a process, which waits for {@linkcode go}. */
  static async start(options: WriterOptions): Promise<WriterProcess> {
    const command = new Deno.Command(Deno.execPath(), {
      args: ["run", "-q", "-A", program, JSON.stringify(options)],
      cwd: project,
      stdin: "piped",
      stdout: "piped",
    });
    const writer = new WriterProcess(command.spawn());
    await writer.#ready.promise;
    return writer;
  }

  /** Its process id. */
  get pid(): number {
    return this.#child.pid;
  }

  /** Numbers of the objects reported as stored; complete when it has ended. */
  get acknowledged(): ReadonlySet<number> {
    return new Set(this.#lines.slice(1).flatMap((line) => line.split(" ").map(Number)));
  }

  /** Starts its stores; does nothing if it has been killed. */
  async go(): Promise<void> {
    try {
      await this.#input.write(new Uint8Array(1));
      await this.#input.close();
    } catch (error) {
      if (!(error instanceof Deno.errors.BrokenPipe)) throw error;
    }
  }

  /** Waits until it has reported a stored object, or has ended. */
  async hasAcknowledged(): Promise<void> {
    await Promise.race([this.#acknowledged.promise, this.#read]);
  }

  /** Waits until it has ended; returns whether it exited successfully. */
  async ended(): Promise<boolean> {
    const { success, signal, code } = await this.#child.status;
    await this.#read;
    if (!success && signal !== "SIGKILL") throw new Error(`The writer failed: ${signal ?? code}`);
    return success;
  }

  /** Kills it; throws if it failed before. */
  async kill(): Promise<void> {
    this.#kill();
    await this.ended();
  }

  /** Kills it unless it has ended. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#kill();
    await this.#child.status;
    await this.#read;
    // Already closed by `go`.
    await this.#input.abort().catch(() => {});
  }

  #kill(): void {
    try {
      this.#child.kill("SIGKILL");
    } catch (error) {
      // Already ended.
      if (!(error instanceof TypeError)) throw error;
    }
  }

  async #readLines(): Promise<void> {
    let rest = "";
    for await (const text of this.#child.stdout.pipeThrough(new TextDecoderStream())) {
      const lines = (rest + text).split("\n");
      rest = lines.pop() ?? "";
      this.#lines.push(...lines);
      if (this.#lines.length > 0) this.#ready.resolve();
      if (this.#lines.length > 1) this.#acknowledged.resolve();
    }
    this.#ready.reject(new Error("The writer ended before it was ready"));
  }
}
