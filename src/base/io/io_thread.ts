import type { Worker } from "node:worker_threads";
import { Control, type IoReply, type IoRequest, type ThreadData } from "./io_messages.ts";

/**
 * Phase of a thread: it loads its program; waits for work; works; is in a call that does not
 * return, although nothing waits for its result any more; is gone.
 */
export type ThreadPhase = "starting" | "idle" | "busy" | "hanging" | "ended";

/** What happens to a thread. It is `drained` when it has answered everything. */
export type ThreadEvent = "ready" | "asked" | "answered" | "drained" | "hung" | "ended";

const NEXT: Readonly<Record<ThreadPhase, Readonly<Partial<Record<ThreadEvent, ThreadPhase>>>>> = {
  starting: { ready: "idle", ended: "ended" },
  idle: { asked: "busy", ended: "ended" },
  busy: { asked: "busy", answered: "busy", drained: "idle", hung: "hanging", ended: "ended" },
  hanging: { answered: "busy", drained: "idle", ended: "ended" },
  ended: { ended: "ended" },
};

/** What a thread tells its pool. */
export interface ThreadListener {
  readonly ready: (thread: IoThread) => void;
  readonly replied: (thread: IoThread, reply: IoReply) => void;
  /**
   * The thread is gone, not on request. With an `error`, its program has failed; otherwise it was
   * terminated, perhaps in the middle of a call that goes on.
   */
  readonly ended: (thread: IoThread, error: Error | undefined) => void;
}

/** Creates the worker of a thread. */
export type StartWorker = (data: ThreadData) => Worker;

/** A worker thread, which keeps the process alive only while it is busy. */
export class IoThread {
  /** Number in its pool; never used again. */
  readonly number: number;
  readonly #worker: Worker;
  readonly #control = new Int32Array(new SharedArrayBuffer(8));
  /** Batches that it has not answered. */
  readonly #asked = new Set<number>();
  #phase: ThreadPhase = "starting";
  #wasReady = false;

  constructor(number: number, start: StartWorker, listener: ThreadListener) {
    this.number = number;
    this.#worker = start({ thread: number, control: this.#control });
    this.#worker.unref();
    let failure: Error | undefined;
    this.#worker.on("message", (message: IoReply | "ready") => {
      if (this.#phase === "ended") return;
      if (message === "ready") {
        this.#enter("ready");
        this.#wasReady = true;
        this.#worker.unref();
        listener.ready(this);
        return;
      }
      this.#asked.delete(message.id);
      this.#enter(this.#asked.size === 0 ? "drained" : "answered");
      if (this.#asked.size === 0) this.#worker.unref();
      listener.replied(this, message);
    });
    this.#worker.on("error", (error: unknown) => {
      failure = error instanceof Error ? error : new Error(String(error));
    });
    this.#worker.on("exit", () => {
      if (this.#phase === "ended") return;
      this.#enter("ended");
      listener.ended(this, failure);
    });
  }

  get phase(): ThreadPhase {
    return this.#phase;
  }

  /** Whether its program has run. */
  get wasReady(): boolean {
    return this.#wasReady;
  }

  /** Batches that it has not answered. */
  get asked(): ReadonlySet<number> {
    return this.#asked;
  }

  /** Gives it a batch. */
  ask(request: IoRequest): void {
    if (this.#asked.size === 0) this.#worker.ref();
    this.#asked.add(request.id);
    this.#enter("asked");
    Atomics.add(this.#control, Control.arrivals, 1);
    this.#worker.postMessage(request);
  }

  /** Keeps the process alive until it is ready, because a batch waits for it. */
  awaitStart(): void {
    this.#worker.ref();
  }

  /** Nothing waits for what it does, and yet it does not answer. */
  hang(): void {
    this.#enter("hung");
    // A process must not wait for it.
    this.#worker.unref();
  }

  /** Ends it; a call that it is in goes on until the file system answers. */
  async end(): Promise<void> {
    this.#enter("ended");
    await this.#worker.terminate();
  }

  #enter(event: ThreadEvent): void {
    const next = NEXT[this.#phase][event];
    if (next === undefined) throw new Error(`A thread that is ${this.#phase} cannot be ${event}`);
    this.#phase = next;
    if (next === "ended") Atomics.store(this.#control, Control.isEnded, 1);
  }
}
