import { systemClock } from "./clock.ts";
import { ownFile } from "./own_file.ts";
import { runZstd, type ZstdReply, type ZstdRequest } from "./zstd_work.ts";

/** Program of the worker threads. In a bundle there is none: calls run on the calling thread. */
const WORKER = ownFile(import.meta.url, "src/base/zstd.ts", "./zstd_worker.ts");
/** Idle threads end after this many milliseconds. */
const IDLE_MS = 2_000;

/** An error that Zstandard itself reported. */
class ZstdError extends Error {}

interface PendingReply {
  readonly resolve: (bytes: Uint8Array<ArrayBuffer>) => void;
  readonly reject: (error: Error) => void;
}

/** A worker thread and the requests that it has not replied to, by request id. */
interface Thread {
  readonly worker: Worker;
  readonly pending: Map<number, PendingReply>;
  /** Cancels the idle timer. */
  cancelIdleTimer: () => void;
}

/**
 * Zstandard in worker threads, because the host's asynchronous functions do their work on the
 * calling thread. Threads start on demand and end when idle.
 */
export class ZstdThreads implements Disposable {
  readonly #maxThreads: number;
  readonly #threads = new Set<Thread>();
  #nextId = 0;
  #isClosed = false;

  /** @param maxThreads Maximum number of threads. */
  constructor(maxThreads: number) {
    this.#maxThreads = maxThreads;
  }

  /** Number of calls in progress. */
  get pending(): number {
    return this.#threads.values().reduce((sum, { pending }) => sum + pending.size, 0);
  }

  /**
   * Compresses bytes. Detaches their buffer.
   *
   * @param level 1 to 22: higher levels give smaller output and take longer.
   * @throws {Error} If compression fails, or the threads are closed first.
   */
  compress(bytes: Uint8Array<ArrayBuffer>, level: number): Promise<Uint8Array<ArrayBuffer>> {
    return this.#ask({ op: "compress", bytes, level });
  }

  /**
   * Decompresses the output of {@linkcode compress}. Detaches its buffer.
   *
   * @param byteLength Expected size of the result in bytes; also bounds the memory used.
   * @returns `undefined` if the input is not a Zstandard frame, or has another decompressed size.
   * @throws {Error} If the threads are closed first, or the thread fails.
   */
  async decompress(
    bytes: Uint8Array<ArrayBuffer>,
    byteLength: number,
  ): Promise<Uint8Array<ArrayBuffer> | undefined> {
    try {
      const plain = await this.#ask({ op: "decompress", bytes, maxBytes: byteLength });
      // Given a truncated frame, the host returns the part it could decompress.
      return plain.byteLength === byteLength ? plain : undefined;
    } catch (error) {
      if (error instanceof ZstdError) return undefined;
      throw error;
    }
  }

  /** Ends the threads. Calls in progress reject. */
  [Symbol.dispose](): void {
    this.#isClosed = true;
    for (const thread of [...this.#threads]) this.#end(thread, new Error("Closed"));
  }

  #ask(request: ZstdRequest): Promise<Uint8Array<ArrayBuffer>> {
    if (this.#isClosed) return Promise.reject(new Error("Closed"));
    const { promise, resolve, reject } = Promise.withResolvers<Uint8Array<ArrayBuffer>>();
    if (WORKER === undefined) {
      settle({ resolve, reject }, runZstd(request));
      return promise;
    }
    const { worker, pending, cancelIdleTimer } = this.#leastBusy(WORKER);
    const id = this.#nextId++;
    cancelIdleTimer();
    pending.set(id, { resolve, reject });
    worker.postMessage({ id, request }, [request.bytes.buffer]);
    return promise;
  }

  #leastBusy(url: URL): Thread {
    const [least] = [...this.#threads].sort((a, b) => a.pending.size - b.pending.size);
    const isEnough = least?.pending.size === 0 || this.#threads.size === this.#maxThreads;
    return least !== undefined && isEnough ? least : this.#start(url);
  }

  #start(url: URL): Thread {
    const worker = new Worker(url, { type: "module", name: "kvtier zstd" });
    const thread: Thread = { worker, pending: new Map(), cancelIdleTimer: () => {} };
    this.#threads.add(thread);
    worker.onmessage = ({ data: { id, ...reply } }: MessageEvent<{ id: number } & ZstdReply>) => {
      const pending = thread.pending.get(id);
      thread.pending.delete(id);
      if (pending !== undefined) settle(pending, reply);
      if (thread.pending.size > 0) return;
      // A worker keeps the process alive, so an idle one ends; the next call starts another.
      const endIdle = (): void => this.#end(thread, new Error("Idle"));
      thread.cancelIdleTimer = systemClock.schedule(endIdle, IDLE_MS);
    };
    worker.onerror = (event) => {
      event.preventDefault();
      this.#end(thread, new Error(event.message));
    };
    return thread;
  }

  #end(thread: Thread, error: Error): void {
    this.#threads.delete(thread);
    thread.cancelIdleTimer();
    thread.worker.terminate();
    for (const { reject } of thread.pending.values()) reject(error);
    thread.pending.clear();
  }
}

function settle({ resolve, reject }: PendingReply, reply: ZstdReply): void {
  if (reply.error === undefined) resolve(reply.bytes);
  else reject(new ZstdError(reply.error));
}
