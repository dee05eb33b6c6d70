import { Worker } from "node:worker_threads";
import { ownFile } from "../../src/runtime/own_file.ts";
import type { AlignedBuffer } from "./direct_access.ts";
import { untilAborted } from "./until_aborted.ts";
import type { FileReply, FileRequest, NumberedRequest } from "./file_worker_program.ts";

/** The module that the worker runs; a bundle has none. */
const MODULE = ownFile(
  import.meta.url,
  "adapters/_shared/file_worker.ts",
  "./file_worker_program.ts",
);
/** The program of the worker, which cannot be one of a server. */
const PROGRAM = MODULE === undefined || MODULE.protocol === "file:"
  ? MODULE
  : new URL(`data:text/javascript,import ${encodeURIComponent(JSON.stringify(MODULE.href))}`);

type Answer = Extract<FileReply, { value: number }>;

/**
 * Does with files what Deno does on the thread that runs the engine, however long that takes: closes
 * them, and writes past the page cache. A worker makes one call after the other; it runs from the
 * first request on, and keeps no process alive while it is idle.
 */
export class FileWorker {
  #worker: Worker | undefined;
  #failure: Error | undefined = PROGRAM === undefined
    ? unavailable("a bundle has no file worker")
    : undefined;
  #asked = 0;
  readonly #answers = new Map<number, PromiseWithResolvers<Answer>>();

  /**
   * Whether it can be asked: a bundle has no program for it, and the process needs the permission to
   * read or import that program.
   */
  static async isAvailable(): Promise<boolean> {
    if (MODULE === undefined) return false;
    const { state } = await Deno.permissions.query(
      MODULE.protocol === "file:"
        ? { name: "read", path: MODULE }
        : { name: "import", host: MODULE.host },
    );
    return state === "granted";
  }

  /** Asks the worker for something; resolves to the number that it answers with. */
  async ask(request: FileRequest): Promise<number> {
    return (await this.request(request)).value;
  }

  /** Like {@linkcode ask}, with the bytes of the answer. */
  request(request: FileRequest): Promise<Answer> {
    if (this.#failure !== undefined || PROGRAM === undefined) return Promise.reject(this.#failure);
    const answer = Promise.withResolvers<Answer>();
    const id = this.#asked++;
    const worker = this.#worker ??= this.#start(PROGRAM);
    if (this.#answers.size === 0) worker.ref();
    this.#answers.set(id, answer);
    worker.postMessage({ id, request } satisfies NumberedRequest);
    return answer.promise;
  }

  /** Writes the first `length` bytes of a buffer; both numbers are aligned. */
  async write(
    file: number,
    { buffer }: AlignedBuffer,
    length: number,
    position: number,
  ): Promise<void> {
    for (let from = 0; from < length;) {
      const place = { from, length, position: position + from };
      const written = await this.ask({ op: "write", file, buffer, ...place });
      // A file system that takes nothing and says nothing would be asked for ever.
      if (written === 0) throw new Deno.errors.WriteZero("The file took no more bytes");
      from += written;
    }
  }

  /** Closes a file, in its turn. */
  forget(file: number): void {
    this.ask({ op: "close", file }).catch(() => {});
  }

  /** Ends the worker when it has done what it was asked for, or when `signal` aborts. */
  async close(signal?: AbortSignal): Promise<void> {
    const done = Promise.allSettled([...this.#answers.values()].map(({ promise }) => promise));
    await (signal === undefined ? done : untilAborted(signal, done, () => []));
    // One that is inside a call of the operating system ends with that call.
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
      // Without its worker nothing can be done this way any more, whatever the file system says.
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
