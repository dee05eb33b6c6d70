import { BatchState, TaskStatus, type TaskStatusCode } from "./batch_state.ts";
import { receivedError } from "./file_error.ts";
import { encodeBatch, type EncodedBatch, type IoBatch, type IoKind } from "./io_batch.ts";
import type { TaskError } from "./io_messages.ts";
import { type LoadProof, makeLoadProof } from "./load_proof.ts";

/** A thread has ended in the middle of a task. */
export class ThreadEndedError extends Error {
  /** The name of the class. */
  override readonly name = "ThreadEndedError";
}

/** What came of the tasks of a batch. */
export class BatchResults {
  readonly #batch: IoBatch;
  readonly #state: BatchState;
  readonly #errors: ReadonlyMap<number, Error>;

  /** For the pool of threads alone. */
  constructor(batch: IoBatch, state: BatchState, errors: ReadonlyMap<number, Error>) {
    this.#batch = batch;
    this.#state = state;
    this.#errors = errors;
  }

  /** How a task ended. */
  statusOf(index: number): TaskStatusCode {
    return this.#state.statusOf(index);
  }

  /** The failure of a task. */
  errorOf(index: number): Error | undefined {
    return this.#errors.get(index);
  }

  /** Proof of the checksum of a loaded object, if it was wanted. */
  proofOf(index: number): LoadProof | undefined {
    if (this.#batch.kind !== "load" || this.statusOf(index) !== TaskStatus.done) return undefined;
    const task = this.#batch.tasks[index];
    if (task === undefined || task.checksumBytes === 0) return undefined;
    return makeLoadProof(task.parts, task.checksumBytes, this.#state.checksumOf(index));
  }
}

/** A batch that threads work on. */
export class PendingBatch {
  readonly id: number;
  readonly kind: IoKind;
  readonly encoded: EncodedBatch;
  readonly state: BatchState;
  /** Most threads that may work on it. */
  readonly maxThreads: number;
  /** Time of the abort; `undefined` while a caller waits. */
  abandonedAt: number | undefined;
  readonly #batch: IoBatch;
  readonly #errors = new Map<number, Error>();
  readonly #results = Promise.withResolvers<BatchResults>();
  #isSettled = false;

  constructor(id: number, batch: IoBatch, maxThreads: number) {
    this.id = id;
    this.kind = batch.kind;
    this.#batch = batch;
    this.encoded = encodeBatch(batch);
    this.state = new BatchState(batch.tasks.length);
    this.maxThreads = Math.min(maxThreads, batch.tasks.length);
  }

  /** Resolves when no thread is at work on a task, and none will be. */
  get results(): Promise<BatchResults> {
    return this.#results.promise;
  }

  get isSettled(): boolean {
    return this.#isSettled;
  }

  /** Whether a task waits for a thread. */
  get hasOpenTasks(): boolean {
    for (let i = 0; i < this.state.length; i++) {
      if (this.state.statusOf(i) === TaskStatus.open) return true;
    }
    return false;
  }

  /** Withdraws what no thread has taken. */
  abandon(now: number): void {
    this.abandonedAt ??= now;
    this.state.skipOpen();
    this.settleIfDone();
  }

  /** Takes the errors of a thread's reply. */
  addErrors(errors: readonly TaskError[]): void {
    for (const { index, ...error } of errors) this.#errors.set(index, receivedError(error));
    this.settleIfDone();
  }

  /**
   * Ends the tasks of a thread that is gone. One that may still fill its buffers never ends, so that
   * they are not used again.
   */
  threadEnded(thread: number, error: Error, mayGoOn: boolean): void {
    for (let i = 0; i < this.state.length; i++) {
      const isLost = this.#isUnexplained(i);
      if (!isLost && this.state.threadOf(i) !== thread) continue;
      if (!isLost && mayGoOn && (this.kind === "load" || this.kind === "copy")) continue;
      if (!isLost) this.state.finish(i, TaskStatus.failed);
      this.#errors.set(i, error);
    }
    this.settleIfDone();
  }

  /** Fails the batch, none of whose tasks was taken. */
  fail(error: Error): void {
    this.state.skipOpen();
    this.#isSettled = true;
    this.#results.reject(error);
  }

  /** Resolves the results if no task is open or at work, and all errors are known. */
  settleIfDone(): void {
    if (this.#isSettled) return;
    for (let i = 0; i < this.state.length; i++) {
      const status = this.state.statusOf(i);
      if (status <= TaskStatus.open || this.#isUnexplained(i)) return;
    }
    this.#isSettled = true;
    this.#results.resolve(new BatchResults(this.#batch, this.state, this.#errors));
  }

  /** Whether a task has failed, and the reply with its error has not arrived. */
  #isUnexplained(index: number): boolean {
    const status = this.state.statusOf(index);
    const hasFailed = status === TaskStatus.failed || status === TaskStatus.unsynced;
    return hasFailed && !this.#errors.has(index);
  }
}
