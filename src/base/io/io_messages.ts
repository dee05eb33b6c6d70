import type { SentError } from "./file_error.ts";
import type { EncodedBatch } from "./io_batch.ts";

/** Fields of {@linkcode ThreadData.control}. */
export const Control = { arrivals: 0, isEnded: 1 } as const;

/** What a thread starts with. */
export interface ThreadData {
  /** Number of the thread in its pool. */
  readonly thread: number;
  /** Number of batches sent to it so far, and 1 once it must take no more tasks. */
  readonly control: Int32Array<SharedArrayBuffer>;
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
