import type { IoWorkers } from "../base/io/io_workers.ts";
import { TaskStatus } from "../base/io/batch_state.ts";
import type { CopyTask, SharedBytes } from "../base/io/io_batch.ts";
import { systemClock } from "../base/clock.ts";
import { MIB } from "../base/units.ts";

/** A copy of fewer bytes takes less time than a message to another thread. */
export const MIN_THREAD_BYTES: number = MIB;
/** What no thread has begun by then is copied by the calling thread, in milliseconds. */
const MAX_WAIT_MS = 500;

/** A copy between two places in host memory, of equal length, that do not overlap. */
export interface HostCopy {
  readonly from: Uint8Array;
  readonly to: Uint8Array;
}

/** Allocates zeros that other threads can access, if the host has such memory. */
export function sharedBytes(byteLength: number): Uint8Array {
  if (typeof SharedArrayBuffer === "undefined") return new Uint8Array(byteLength);
  return new Uint8Array(new SharedArrayBuffer(byteLength));
}

/**
 * Copies bytes: many in worker threads, if there are any and they can access all places; few, or
 * otherwise, before the call returns. Until the promise resolves, none of the places may be used.
 */
export function copyBytes(
  copies: readonly HostCopy[],
  threads: IoWorkers | undefined,
): void | Promise<void> {
  const bytes = copies.reduce((sum, { from }) => sum + from.byteLength, 0);
  if (threads?.isReady && bytes >= MIN_THREAD_BYTES) {
    const tasks = copies.flatMap(({ from, to }): CopyTask[] =>
      isShared(from) && isShared(to) ? [{ from, to }] : []
    );
    if (tasks.length === copies.length) return copyInThreads(tasks, threads);
  }
  for (const { from, to } of copies) to.set(from);
}

async function copyInThreads(tasks: readonly CopyTask[], threads: IoWorkers): Promise<void> {
  // Threads may be in calls that take long, or never return.
  const late = new AbortController();
  const cancel = systemClock.schedule(() => late.abort(), MAX_WAIT_MS);
  let results: Awaited<ReturnType<IoWorkers["run"]>> | undefined;
  try {
    results = await threads.run({ kind: "copy", tasks }, { signal: late.signal });
  } catch {
    // No thread works on them any more.
  } finally {
    cancel();
  }
  for (const [i, { from, to }] of tasks.entries()) {
    if (results?.statusOf(i) !== TaskStatus.done) to.set(from);
  }
}

/** Whether other threads can access bytes. */
export function isShared(bytes: Uint8Array): bytes is SharedBytes {
  return typeof SharedArrayBuffer !== "undefined" && bytes.buffer instanceof SharedArrayBuffer;
}
