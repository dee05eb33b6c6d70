/** How a task ended, or what became of it so far. */
export const TaskStatus = {
  /** No thread has taken it. */
  open: 0,
  /** Found, read, copied or stored. */
  done: 1,
  /** A path that does not exist. */
  absent: 2,
  /** A file of another length than expected. */
  otherSize: 3,
  /** The reply has the error. */
  failed: 4,
  /** Like `failed`, but the file has its name, which may not survive a power cut. */
  unsynced: 5,
  /** Withdrawn before a thread took it. */
  skipped: 6,
} as const;

/** One of {@linkcode TaskStatus}, or less than 0 if a thread is at work on the task. */
export type TaskStatusCode = number;

const CURSOR = 0;
const FIRST = 1;
const FIELDS = 2;
const CHECKSUM = 1;

/**
 * The state of a batch in shared memory: a cursor from which threads take tasks, and for each task
 * its status and a checksum. A task belongs to the thread that changed its status from open.
 */
export class BatchState {
  readonly #fields: Int32Array<SharedArrayBuffer>;
  /** Number of tasks. */
  readonly length: number;

  /** Takes the state that another thread has made, or makes one for `length` tasks. */
  constructor(state: number | Int32Array<SharedArrayBuffer>) {
    this.#fields = typeof state === "number"
      ? new Int32Array(new SharedArrayBuffer(4 * (FIRST + FIELDS * state)))
      : state;
    this.length = (this.#fields.length - FIRST) / FIELDS;
  }

  /** The shared memory. */
  get fields(): Int32Array<SharedArrayBuffer> {
    return this.#fields;
  }

  /** Takes the next open task for a thread; returns its index, or `undefined` if none is left. */
  take(thread: number): number | undefined {
    for (;;) {
      const index = Atomics.add(this.#fields, CURSOR, 1);
      if (index >= this.length) {
        // So that no number of further attempts lets the cursor overflow.
        Atomics.store(this.#fields, CURSOR, this.length);
        return undefined;
      }
      if (this.#replace(index, TaskStatus.open, -1 - thread)) return index;
    }
  }

  /** Ends a task that this thread has taken. */
  finish(index: number, status: TaskStatusCode, checksum = 0): void {
    this.#fields[FIRST + FIELDS * index + CHECKSUM] = checksum;
    Atomics.store(this.#fields, FIRST + FIELDS * index, status);
  }

  /** Withdraws every task that no thread has taken. */
  skipOpen(): void {
    Atomics.store(this.#fields, CURSOR, this.length);
    for (let i = 0; i < this.length; i++) this.#replace(i, TaskStatus.open, TaskStatus.skipped);
  }

  /** Status of a task. */
  statusOf(index: number): TaskStatusCode {
    return Atomics.load(this.#fields, FIRST + FIELDS * index);
  }

  /** The thread at work on a task; `undefined` if none is. */
  threadOf(index: number): number | undefined {
    const status = this.statusOf(index);
    return status < 0 ? -1 - status : undefined;
  }

  /** Checksum of a task that is done. */
  checksumOf(index: number): number {
    return (this.#fields[FIRST + FIELDS * index + CHECKSUM] ?? 0) >>> 0;
  }

  #replace(index: number, from: number, to: number): boolean {
    return Atomics.compareExchange(this.#fields, FIRST + FIELDS * index, from, to) === from;
  }
}
