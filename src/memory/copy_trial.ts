import { createGpuBuffer } from "./gpu_buffer.ts";
import type { CopyOperation, CopyPath, MeasuredCopyPath } from "./memory_device.ts";

/** The faster path, with the times of the trial's copies. */
export type CopySpeeds = Omit<MeasuredCopyPath, "bytesPerCopy">;

/** Maximum number of bytes and operations of a trial. */
const TRIAL_BYTES = 4 * 2 ** 20;
const TRIAL_OPERATIONS = 1024;
/** Shorter times are noise: some hosts poll with timers of 1 ms. */
const MIN_MS = 4;
const GROWTH = 8;
const MAX_REPEATS = 64;
/** The path that is faster in two of three rounds wins. */
const ROUNDS_TO_WIN = 2;
/** The kernel wins a round if it takes less than this share of the time of individual copies. */
const CLEAR_SHARE = 0.8;

/**
 * Determines the faster path, increasing the number of repeats until the times differ clearly. If
 * they never do, chooses individual copies.
 *
 * @param time Returns the milliseconds that the given number of repeats takes, including the wait
 * for completion; with 0 repeats, only that wait. `null` ends the trial.
 * @returns `null` if the trial was ended.
 */
export async function compareCopyPaths(
  time: (path: CopyPath, repeats: number) => Promise<number | null>,
): Promise<CopySpeeds | null> {
  const wins = { kernel: 0, copies: 0 };
  for (let repeats = 1;;) {
    const idleMs = await time("copies", 0);
    const copiesMs = await time("copies", repeats);
    const kernelMs = await time("kernel", repeats);
    if (idleMs === null || copiesMs === null || kernelMs === null) return null;
    const speeds = {
      copiesMs: Math.max(0, copiesMs - idleMs) / repeats,
      kernelMs: Math.max(0, kernelMs - idleMs) / repeats,
    };
    const isClear = Math.max(copiesMs, kernelMs) - idleMs >= MIN_MS;
    if (!isClear && repeats < MAX_REPEATS) {
      repeats *= GROWTH;
      continue;
    }
    const isFaster = isClear && speeds.kernelMs < CLEAR_SHARE * speeds.copiesMs;
    const path = isFaster ? "kernel" : "copies";
    if (++wins[path] === ROUNDS_TO_WIN) return { path, ...speeds };
  }
}

/** The buffers of a trial. */
export class TrialBuffers implements Disposable {
  /** Copies of equal size between non-consecutive ranges. */
  readonly operations: readonly CopyOperation[];
  readonly #buffers: readonly [GPUBuffer, GPUBuffer];

  constructor(gpuDevice: GPUDevice, bytesPerCopy: number) {
    const count = Math.min(TRIAL_OPERATIONS, Math.ceil(TRIAL_BYTES / bytesPerCopy));
    const create = (): GPUBuffer =>
      createGpuBuffer(gpuDevice, "kvtier copy trial", count * bytesPerCopy);
    const [source, destination] = this.#buffers = [create(), create()];
    this.operations = Array.from({ length: count }, (_, i) => ({
      source,
      sourceOffset: (count - 1 - i) * bytesPerCopy,
      destination,
      destinationOffset: i * bytesPerCopy,
      byteLength: bytesPerCopy,
    }));
  }

  /** Destroys the buffers. */
  [Symbol.dispose](): void {
    for (const buffer of this.#buffers) buffer.destroy();
  }
}
