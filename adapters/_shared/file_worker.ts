import { Worker } from "node:worker_threads";
import { ThreadProgram } from "../../src/base/thread_program.ts";
import type { AlignedBuffer } from "./direct_access.ts";
import { untilAborted } from "../../src/base/abort.ts";
import type { FileReply, FileRequest, NumberedRequest } from "./file_worker_program.ts";

const PROGRAM = new ThreadProgram(
  import.meta.url,
  "adapters/_shared/file_worker.ts",
  "./file_worker_program.ts",
);

type Answer = Extract<FileReply, { value: number }>;

/**
 * Runs file operations in a worker, one at a time. Deno closes files on the thread that runs the
 * engine, and has no asynchronous direct write; both can block for long. The worker starts with the
 * first request, and keeps no process alive while it is idle.
 */
export class FileWorker {
  #worker: Worker | undefined;
  #failure: Error | undefined = PROGRAM.url === undefined
    ? unavailable("a bundle has no file worker")
    : undefined;
  #asked = 0;
  readonly #answers = new Map<number, PromiseWithResolvers<Answer>>();

  /**
   * Whether the worker can run: not in a bundle, and only with permission to read (or import) its
   * program.
   */
  static async isAvailable(): Promise<boolean> {
    return await PROGRAM.obstacle() === undefined;
  }

  /** Sends a request; resolves to the number in the reply. */
  async ask(request: FileRequest): Promise<number> {
    return (await this.request(request)).value;
  }

  /** Like {@linkcode ask}, but resolves to the whole reply. */
  request(request: FileRequest): Promise<Answer> {
    const { url } = PROGRAM;
    if (this.#failure !== undefined || url === undefined) return Promise.reject(this.#failure);
    const answer = Promise.withResolvers<Answer>();
    const id = this.#asked++;
    const worker = this.#worker ??= this.#start(url);
    if (this.#answers.size === 0) worker.ref();
    this.#answers.set(id, answer);
    worker.postMessage({ id, request } satisfies NumberedRequest);
    return answer.promise;
  }

  /** Writes the first `length` bytes of a buffer. `length` and `position` must be aligned. */
  async write(
    file: number,
    { buffer }: AlignedBuffer,
    length: number,
    position: number,
  ): Promise<void> {
    for (let from = 0; from < length;) {
      const place = { from, length, position: position + from };
      const written = await this.ask({ op: "write", file, buffer, ...place });
      // A file system that writes no bytes without an error would loop forever.
      if (written === 0) throw new Deno.errors.WriteZero("The file took no more bytes");
      from += written;
    }
  }

  /** Closes a file after the requests made so far. */
  closeLater(file: number): void {
    this.ask({ op: "close", file }).catch(() => {});
  }

  /** Terminates the worker after all pending requests, or when `signal` aborts. */
  async close(signal?: AbortSignal): Promise<void> {
    const done = Promise.allSettled([...this.#answers.values()].map(({ promise }) => promise));
    await untilAborted(signal, done, () => []);
    // A pending system call completes before the thread ends.
    await this.#worker?.terminate();
    this.#worker = undefined;
    this.#failure = unavailable("The file worker is closed");
  }

  #start(program: URL): Worker {
    const worker = new Worker(program, { name: "kvtier files" });
    worker.unref();
    worker.on("message", ({ id, ...reply }: { id: number } & FileReply) => {
      const answer = this.#answers.get(id);
      this.#answers.delete(id);
      if (this.#answers.size === 0) worker.unref();
      if (reply.error === undefined) answer?.resolve(reply);
      else answer?.reject(Object.assign(new Error(reply.error), { code: reply.code }));
    });
    worker.on("error", (error: unknown) => {
      // Reject with ENOTSUP: the caller must stop using the worker, whatever the file system
      // supports.
      this.#failure = unavailable(error instanceof Error ? error.message : String(error));
      for (const answer of this.#answers.values()) answer.reject(this.#failure);
      this.#answers.clear();
    });
    return worker;
  }
}

function unavailable(message: string): Error {
  return Object.assign(new Error(message), { code: "ENOTSUP" });
}
