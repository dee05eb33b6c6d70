import type { ZstdReply, ZstdRequest } from "./zstd_worker.ts";

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
    const { worker, answers } = this.#leastBusy();
    const id = this.#nextId++;
    answers.set(id, { resolve, reject });
    worker.postMessage({ id, request }, [request.bytes.buffer]);
    return promise;
  }

  #leastBusy(): Thread {
    const [first, ...others] = this.#threads;
    let least = first;
    for (const thread of others) {
      if (thread.answers.size < (least?.answers.size ?? 0)) least = thread;
    }
    const isEnough = least?.answers.size === 0 || this.#threads.length === this.#most;
    return least !== undefined && isEnough ? least : this.#start();
  }

  #start(): Thread {
    const url = new URL("./zstd_worker.ts", import.meta.url);
    const worker = new Worker(url, { type: "module", name: "kvtier zstd" });
    const thread: Thread = { worker, answers: new Map() };
    this.#threads.push(thread);
    worker.onmessage = ({ data: { id, ...reply } }: MessageEvent<{ id: number } & ZstdReply>) => {
      const answer = thread.answers.get(id);
      thread.answers.delete(id);
      if (reply.error === undefined) answer?.resolve(reply.bytes);
      else answer?.reject(new ZstdError(reply.error));
    };
    worker.onerror = (event) => {
      event.preventDefault();
      // The next call starts another.
      const index = this.#threads.indexOf(thread);
      if (index >= 0) this.#threads.splice(index, 1);
      end(thread, new Error(event.message));
    };
    return thread;
  }
}

function end({ worker, answers }: Thread, error: Error): void {
  worker.terminate();
  for (const { reject } of answers.values()) reject(error);
  answers.clear();
}
