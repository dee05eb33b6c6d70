import type { SentError } from "./file_error.ts";
import type { EncodedBatch } from "./io_batch.ts";

/** What a thread starts with. */
export interface ThreadData {
  /** Number of the thread in its pool. */
  readonly thread: number;
  /** Number of batches sent to it so far. */
  readonly arrivals: Int32Array<SharedArrayBuffer>;
}

/** A batch for a thread. */
export interface IoRequest {
  readonly id: number;
  readonly batch: EncodedBatch;
  /** Memory of the `BatchState`. */
  readonly state: Int32Array<SharedArrayBuffer>;
}

/** The failure of one task. */
export interface TaskError extends SentError {
  readonly index: number;
}

/** A thread has found no more task in a batch. The first message of a thread is `ready`. */
export interface IoReply {
  readonly id: number;
  /** Of the tasks that this thread has done. */
  readonly errors: readonly TaskError[];
}
