import { systemClock } from "./clock.ts";
import { ownFile } from "./own_file.ts";
import { runZstd, type ZstdReply, type ZstdRequest } from "./zstd_work.ts";

/** The program of a thread; a bundle has none, and does the work on the thread that calls. */
const WORKER = ownFile(import.meta.url, "src/runtime/zstd.ts", "./zstd_worker.ts");
/** Idle threads end after this time. */
const IDLE_MS = 2_000;

/** What Zstandard itself refused. */
class ZstdError extends Error {}

interface Answer {
  readonly resolve: (bytes: Uint8Array<ArrayBuffer>) => void;
  readonly reject: (error: Error) => void;
}

/** A thread, and what it was asked for and has not answered yet. */
interface Thread {
  readonly worker: Worker;
  readonly answers: Map<number, Answer>;
  /** Cancels the end of an idle thread. */
  keep: () => void;
}

/**
 * Zstandard in threads of its own: the host's asynchronous functions do all of their work on the
 * thread that calls them. Threads are started when they are needed first.
 */
export class ZstdThreads implements Disposable {
  readonly #most: number;
  readonly #threads: Thread[] = [];
  #nextId = 0;
  #isClosed = false;

  /** Uses so many threads at most. */
  constructor(most: number) {
    this.#most = most;
  }

  /** Calls that have not been answered yet. */
  get pending(): number {
    return this.#threads.reduce((sum, { answers }) => sum + answers.size, 0);
  }

  /**
   * Compresses bytes, whose buffer is detached.
   *
   * @param level 1 to 22: more is smaller, and slower.
   * @throws {Error} If the host cannot, or this is closed before.
   */
  compress(bytes: Uint8Array<ArrayBuffer>, level: number): Promise<Uint8Array<ArrayBuffer>> {
    return this.#ask({ op: "compress", bytes, level });
  }

  /**
   * The inverse of {@linkcode compress}; the buffer of the bytes is detached.
   *
   * @param byteLength Bytes that must come out; no more room is taken than for these.
   * @returns `undefined` if the bytes are no Zstandard frame, or one of another length.
   * @throws {Error} If this is closed before, or the thread fails.
   */
  async decompress(
    bytes: Uint8Array<ArrayBuffer>,
    byteLength: number,
  ): Promise<Uint8Array<ArrayBuffer> | undefined> {
    try {
      const plain = await this.#ask({ op: "decompress", bytes, maxBytes: byteLength });
      // Of a frame that is cut, the host makes what it can.
      return plain.byteLength === byteLength ? plain : undefined;
    } catch (error) {
      if (error instanceof ZstdError) return undefined;
      throw error;
    }
  }

  /** Ends the threads; calls that have not been answered fail. */
  [Symbol.dispose](): void {
    this.#isClosed = true;
    for (const thread of this.#threads.splice(0)) end(thread, new Error("Closed"));
  }

  #ask(request: ZstdRequest): Promise<Uint8Array<ArrayBuffer>> {
    if (this.#isClosed) return Promise.reject(new Error("Closed"));
    const { promise, resolve, reject } = Promise.withResolvers<Uint8Array<ArrayBuffer>>();
    if (WORKER === undefined) {
      settle({ resolve, reject }, runZstd(request));
      return promise;
    }
    const { worker, answers, keep } = this.#leastBusy(WORKER);
    const id = this.#nextId++;
    keep();
    answers.set(id, { resolve, reject });
    worker.postMessage({ id, request }, [request.bytes.buffer]);
    return promise;
  }

  #leastBusy(url: URL): Thread {
    const [first, ...others] = this.#threads;
    let least = first;
    for (const thread of others) {
      if (thread.answers.size < (least?.answers.size ?? 0)) least = thread;
    }
    const isEnough = least?.answers.size === 0 || this.#threads.length === this.#most;
    return least !== undefined && isEnough ? least : this.#start(url);
  }

  #start(url: URL): Thread {
    const worker = new Worker(url, { type: "module", name: "kvtier zstd" });
    const thread: Thread = { worker, answers: new Map(), keep: () => {} };
    this.#threads.push(thread);
    worker.onmessage = ({ data: { id, ...reply } }: MessageEvent<{ id: number } & ZstdReply>) => {
      const answer = thread.answers.get(id);
      thread.answers.delete(id);
      if (answer !== undefined) settle(answer, reply);
      if (thread.answers.size > 0) return;
      // A thread keeps the process alive: one without work must not, and the next call starts another.
      thread.keep = systemClock.schedule(() => this.#end(thread, new Error("Idle")), IDLE_MS);
    };
    worker.onerror = (event) => {
      event.preventDefault();
      this.#end(thread, new Error(event.message));
    };
    return thread;
  }

  #end(thread: Thread, error: Error): void {
    const index = this.#threads.indexOf(thread);
    if (index >= 0) this.#threads.splice(index, 1);
    end(thread, error);
  }
}

function settle({ resolve, reject }: Answer, reply: ZstdReply): void {
  if (reply.error === undefined) resolve(reply.bytes);
  else reject(new ZstdError(reply.error));
}

function end({ worker, answers, keep }: Thread, error: Error): void {
  keep();
  worker.terminate();
  for (const { reject } of answers.values()) reject(error);
  answers.clear();
}
