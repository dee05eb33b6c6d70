import { Worker } from "node:worker_threads";
import { type Clock, systemClock } from "../clock.ts";
import { ThreadProgram } from "../thread_program.ts";
import type { IoBatch, IoKind } from "./io_batch.ts";
import type { IoReply } from "./io_messages.ts";
import { IoThread, type StartWorker, type ThreadListener } from "./io_thread.ts";
import { type BatchResults, PendingBatch, ThreadEndedError } from "./pending_batch.ts";

const PROGRAM = new ThreadProgram(
  import.meta.url,
  "src/base/io/io_workers.ts",
  "./io_program.ts",
);

/** Threads take that many times the place of others that hang. */
const MAX_THREADS_SHARE = 2;
/** A thread hangs if it does not answer for so long after nothing waits for it, in milliseconds. */
const HANGING_MS = 100;
/** So many starts in a row may fail before no other is tried. */
const MAX_FAILED_STARTS = 3;

/** Why there are no threads, or how many work. */
export interface IoWorkersStatus {
  readonly phase: PoolPhase;
  /** Why there are none. */
  readonly reason?: string;
  /** Threads that wait or work. */
  readonly threads: number;
  /** Threads in calls that do not return. */
  readonly hanging: number;
}

/** Phase of a pool: not started; starting; at least one thread is ready; none can run; closed. */
export type PoolPhase = "new" | "starting" | "ready" | "unavailable" | "closed";

/** Options of {@linkcode IoWorkers}. */
export interface IoWorkersOptions {
  /** Number of threads. */
  readonly count: number;
  readonly clock?: Clock;
  /** Creates the worker of a thread, for tests. */
  readonly startWorker?: StartWorker;
}

/** Options of one batch. */
export interface RunOptions {
  /** When it aborts, tasks that no thread has taken are skipped. */
  readonly signal?: AbortSignal | undefined;
  /** Most threads that work on the batch. @default {all} */
  readonly maxThreads?: number;
}

/**
 * Worker threads for file operations and copies, which block them instead of the thread that runs
 * the engine. A thread in a call that does not return is replaced; up to as many again may hang.
 * Idle threads keep no process alive.
 */
export class IoWorkers {
  /** Number of threads. */
  readonly count: number;
  readonly #clock: Clock;
  readonly #startWorker: StartWorker | undefined;
  readonly #threads = new Set<IoThread>();
  readonly #batches = new Map<number, PendingBatch>();
  /** Batches that wait for a thread. */
  readonly #waiting = new Set<PendingBatch>();
  readonly #started = Promise.withResolvers<void>();
  #phase: PoolPhase = "new";
  #reason: string | undefined;
  #nextThread = 0;
  #nextBatch = 0;
  #failedStarts = 0;
  #cancelStart = (): void => {};

  constructor({ count, clock = systemClock, startWorker }: IoWorkersOptions) {
    this.count = count;
    this.#clock = clock;
    this.#startWorker = startWorker;
  }

  /** Whether batches can run now. */
  get isReady(): boolean {
    return this.#phase === "ready";
  }

  get status(): IoWorkersStatus {
    const hanging = this.#count("hanging");
    const threads = this.#count("idle") + this.#count("busy");
    const reason = this.#reason;
    return { phase: this.#phase, threads, hanging, ...(reason === undefined ? {} : { reason }) };
  }

  /** Starts the threads in the background; resolves when they are ready, or cannot run. */
  start(): Promise<void> {
    if (this.#phase !== "new") return this.#started.promise;
    this.#phase = "starting";
    PROGRAM.obstacle().catch(String).then((obstacle) => {
      if (this.#phase !== "starting") return;
      if (obstacle !== undefined) this.#giveUp(obstacle);
      else this.#startMissing();
    });
    return this.#started.promise;
  }

  /**
   * Runs a batch. Resolves when no thread is at work on it any more, and none will be: never, if a
   * thread does not return from a call.
   *
   * @throws {Error} If all threads hang, or the pool is not ready.
   */
  run(batch: IoBatch, { signal, maxThreads = this.count }: RunOptions = {}): Promise<BatchResults> {
    const pending = new PendingBatch(this.#nextBatch++, batch, maxThreads);
    if (this.#phase !== "ready") {
      pending.fail(new Error(`Worker threads are ${this.#phase}`));
      return pending.results;
    }
    const abandon = (): void => {
      pending.abandon(this.#clock.now());
      if (this.#waiting.delete(pending)) this.#batches.delete(pending.id);
    };
    if (signal?.aborted || batch.tasks.length === 0) {
      abandon();
      return pending.results;
    }
    this.#batches.set(pending.id, pending);
    signal?.addEventListener("abort", abandon, { once: true });
    this.#dispatch(pending);
    return pending.results.finally(() => signal?.removeEventListener("abort", abandon));
  }

  /**
   * Ends the threads. Batches fail; tasks in a call that may still fill their buffers never end.
   */
  async close(): Promise<void> {
    this.#phase = "closed";
    this.#cancelStart();
    this.#started.resolve();
    const threads = [...this.#threads];
    this.#threads.clear();
    await Promise.all(threads.map((thread) => thread.end()));
    const error = new ThreadEndedError("Worker threads were ended");
    for (const batch of this.#batches.values()) {
      batch.abandon(this.#clock.now());
      for (const { number } of threads) batch.threadEnded(number, error, true);
    }
    this.#batches.clear();
    this.#waiting.clear();
  }

  #dispatch(batch: PendingBatch): void {
    this.#waiting.delete(batch);
    this.#findHanging();
    const threads = this.#threadsFor(batch.kind).slice(0, batch.maxThreads);
    if (threads.length > 0) {
      const { id, encoded, state: { fields } } = batch;
      for (const thread of threads) thread.ask({ id, batch: encoded, state: fields });
    } else if (this.#count("starting") > 0) {
      this.#waiting.add(batch);
      for (const thread of this.#threads) if (thread.phase === "starting") thread.awaitStart();
    } else {
      this.#batches.delete(batch.id);
      const hanging = this.#count("hanging");
      batch.fail(new Error(`All ${hanging} worker threads wait for the file system to answer`));
    }
  }

  /** Threads for a batch, those with the least to do first. */
  #threadsFor(kind: IoKind): IoThread[] {
    const able = [...this.#threads].filter(({ phase }) => phase === "idle" || phase === "busy")
      .sort((a, b) => a.asked.size - b.asked.size);
    // Looking paths up takes less time than waking another thread.
    return kind === "find" && able[0]?.phase === "idle" ? able.slice(0, 1) : able;
  }

  /** Gives up threads that do not return, and starts others. */
  #findHanging(): void {
    const now = this.#clock.now();
    for (const thread of this.#threads) {
      if (thread.phase !== "busy") continue;
      const isHanging = [...thread.asked].some((id) => {
        const abandonedAt = this.#batches.get(id)?.abandonedAt;
        return abandonedAt !== undefined && now - abandonedAt > HANGING_MS;
      });
      if (isHanging) thread.hang();
    }
    this.#startMissing();
  }

  /** Starts a thread if there are too few; others follow when it is ready. */
  #startMissing(): void {
    if (this.#phase !== "starting" && this.#phase !== "ready") return;
    const isEnough = this.#threads.size - this.#count("hanging") >= this.count ||
      this.#threads.size >= MAX_THREADS_SHARE * this.count ||
      this.#failedStarts >= MAX_FAILED_STARTS;
    if (isEnough || this.#count("starting") > 0) {
      if (isEnough) this.#started.resolve();
      return;
    }
    const listener: ThreadListener = {
      ready: () => this.#isStarted(),
      replied: (thread, reply) => this.#replied(thread, reply),
      ended: (thread, error) => this.#ended(thread, error),
    };
    const number = this.#nextThread++;
    try {
      this.#threads.add(new IoThread(number, this.#startWorker ?? startProgram, listener));
    } catch (error) {
      this.#startFailed(error instanceof Error ? error.message : String(error));
    }
  }

  /** The next batch tries again, unless there never was a thread. */
  #startFailed(reason: string): void {
    this.#failedStarts++;
    if (this.#phase === "starting") this.#giveUp(reason);
  }

  #isStarted(): void {
    this.#phase = "ready";
    this.#failedStarts = 0;
    for (const batch of [...this.#waiting]) this.#dispatch(batch);
    // Each start blocks this thread for some 20 ms: other work comes between.
    this.#cancelStart = this.#clock.schedule(() => this.#startMissing(), 0, { background: true });
  }

  #replied(thread: IoThread, { id, errors }: IoReply): void {
    const batch = this.#batches.get(id);
    batch?.addErrors(errors);
    this.#forgetIfAnswered(id);
    const surplus = this.#threads.size - this.#count("hanging") - this.count;
    if (surplus > 0 && thread.phase === "idle") {
      this.#threads.delete(thread);
      thread.end();
    }
  }

  #ended(thread: IoThread, error: Error | undefined): void {
    this.#threads.delete(thread);
    if (!thread.wasReady) this.#startFailed(error?.message ?? "the program ended");
    const message = error === undefined ? "it was terminated" : error.message;
    const cause = new ThreadEndedError(`A worker thread has ended: ${message}`, { cause: error });
    const unfinished = [...thread.asked].map((id) => this.#batches.get(id));
    for (const batch of unfinished) batch?.threadEnded(thread.number, cause, error === undefined);
    if (thread.wasReady) this.#startMissing();
    for (const batch of [...unfinished, ...this.#waiting]) {
      if (batch === undefined) continue;
      if (!this.#isAsked(batch.id) && batch.hasOpenTasks) this.#dispatch(batch);
      this.#forgetIfAnswered(batch.id);
    }
  }

  #forgetIfAnswered(id: number): void {
    if (this.#batches.get(id)?.isSettled && !this.#isAsked(id)) this.#batches.delete(id);
  }

  #isAsked(id: number): boolean {
    return [...this.#threads].some(({ asked }) => asked.has(id));
  }

  #giveUp(reason: string): void {
    this.#phase = "unavailable";
    this.#reason = reason;
    this.#started.resolve();
  }

  #count(phase: IoThread["phase"]): number {
    let count = 0;
    for (const thread of this.#threads) if (thread.phase === phase) count++;
    return count;
  }
}

function startProgram(data: object): Worker {
  const { url } = PROGRAM;
  if (url === undefined) throw new Error("A bundle has no worker threads");
  return new Worker(url, { name: "kvtier io", workerData: data });
}
