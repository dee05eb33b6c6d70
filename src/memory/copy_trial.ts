import type { CopyOperation, CopyPath } from "./memory_device.ts";

/** What a trial found. */
export interface CopySpeeds {
  /** The faster path. */
  readonly path: CopyPath;
  /** Milliseconds of the trial's copies by the kernel. */
  readonly kernelMs: number;
  /** Milliseconds of the same copies one by one. */
  readonly copiesMs: number;
}

/** A trial copies up to so many bytes, in up to so many operations. */
const TRIAL_BYTES = 4 * 2 ** 20;
const TRIAL_OPERATIONS = 1024;
/** Differences below are noise: some hosts wait by timers of 1 ms. */
const LEAST_MS = 4;
const GROWTH = 8;
const MAX_REPEATS = 64;
/** The path that is faster in two rounds of three is taken. */
const ROUNDS_TO_WIN = 2;
/** The kernel wins a round by at least this much. */
const CLEAR_SHARE = 0.8;

/**
 * Finds out which path is faster, from short copies up to ones that can be told apart. Where they
 * cannot, copies are taken.
 *
 * @param time Milliseconds that so many repeats take with the wait for their end, which is all that
 * none take; `null` ends the trial.
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
    const isClear = Math.max(copiesMs, kernelMs) - idleMs >= LEAST_MS;
    if (!isClear && repeats < MAX_REPEATS) {
      repeats *= GROWTH;
      continue;
    }
    const isFaster = isClear && speeds.kernelMs < CLEAR_SHARE * speeds.copiesMs;
    const path = isFaster ? "kernel" : "copies";
    if (++wins[path] === ROUNDS_TO_WIN) return { path, ...speeds };
  }
}

/** Buffers between which a trial copies. */
export class TrialBuffers implements Disposable {
  /** Copies of one size, from ranges that do not follow one another. */
  readonly operations: readonly CopyOperation[];
  readonly #buffers: readonly [GPUBuffer, GPUBuffer];

  constructor(gpuDevice: GPUDevice, bytesPerCopy: number) {
    const count = Math.min(TRIAL_OPERATIONS, Math.ceil(TRIAL_BYTES / bytesPerCopy));
    const create = (): GPUBuffer =>
      gpuDevice.createBuffer({
        label: "kvtier copy trial",
        size: count * bytesPerCopy,
        usage: GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST,
      });
    const [source, destination] = this.#buffers = [create(), create()];
    this.operations = Array.from({ length: count }, (_, i) => ({
      source,
      sourceOffset: (count - 1 - i) * bytesPerCopy,
      destination,
      destinationOffset: i * bytesPerCopy,
      byteLength: bytesPerCopy,
    }));
  }

  /** Destroys them. */
  [Symbol.dispose](): void {
    for (const buffer of this.#buffers) buffer.destroy();
  }
}
