import { getLogger } from "@logtape/logtape";
import { CopyKernel } from "./copy_kernel.ts";
import { type BindingLimits, planCopies } from "./copy_plan.ts";
import { compareCopyPaths, type CopySpeeds, TrialBuffers } from "./copy_trial.ts";
import { catchGpuErrors } from "./gpu_errors.ts";
import type { CopyOperation, CopyPath, DeviceBuffer, MeasuredCopyPath } from "./memory_device.ts";

const logger = getLogger(["kvtier", "memory"]);

/** Fewer or larger operations are always copied one by one: the bytes dominate their cost. */
const MIN_OPERATIONS = 64;
const MAX_BYTES_PER_COPY = 256 * 1024;
const MIN_BYTES_PER_COPY = 1024;
/** Calls with fewer bytes do not trigger a measurement. */
const MIN_BYTES_TO_MEASURE = 2 ** 20;

/**
 * Records copies by the path that is faster on a device for their size. Uses individual copies until
 * the device has been measured, once per size.
 */
export class CopyPaths implements Disposable {
  readonly #gpuDevice: GPUDevice;
  readonly #limits: BindingLimits;
  readonly #now: () => number;
  readonly #due = new Set<number>();
  readonly #measured = new Map<number, MeasuredCopyPath>();
  #state: "open" | "measuring" | "closed" = "open";
  /** Created on demand; `null` if the device rejects it. */
  #kernel: CopyKernel | null | undefined;
  #forced: CopyPath | undefined;
  #trial: TrialBuffers | undefined;

  constructor(gpuDevice: GPUDevice, now: () => number = () => performance.now()) {
    const { minStorageBufferOffsetAlignment, maxStorageBufferBindingSize } = gpuDevice.limits;
    this.#gpuDevice = gpuDevice;
    this.#now = now;
    this.#limits = {
      offsetAlignment: minStorageBufferOffsetAlignment,
      maxBindingBytes: maxStorageBufferBindingSize,
    };
  }

  /** The measured sizes, in the order of their measurement. */
  get measured(): readonly MeasuredCopyPath[] {
    return [...this.#measured.values()];
  }

  /** Records operations into an encoder, which must be submitted before the next call. */
  record(encoder: GPUCommandEncoder, operations: readonly CopyOperation[]): void {
    this.#recordBy(this.#pathOf(operations), encoder, operations);
  }

  /**
   * Measures the sizes that are due, if any. A measurement starts when the device is idle, so
   * callers should be about to wait for that anyway. Takes 0.1 to 0.3 s once per size; never
   * rejects.
   */
  async measureDue(): Promise<void> {
    if (this.#due.size === 0 || this.#state !== "open") return;
    this.#state = "measuring";
    for (const bytesPerCopy of this.#due) {
      const measured = await this.#measure(bytesPerCopy);
      if (this.#isClosed) return;
      this.#due.delete(bytesPerCopy);
      this.#measured.set(bytesPerCopy, { bytesPerCopy, ...measured });
      logger.info("Copies of up to {bytesPerCopy} bytes within device memory: by {path}", {
        bytesPerCopy,
        path: measured.path,
      });
    }
    this.#state = "open";
  }

  /**
   * Uses one path for all copies that it supports, regardless of measurements; for tests and
   * benchmarks.
   *
   * @param path `undefined` restores the choice by measurement.
   * @throws {Error} If the device rejects the kernel.
   */
  async force(path: CopyPath | undefined): Promise<void> {
    if (path === "kernel" && await this.#kernelOfDevice() === null) {
      throw new Error("The device rejects the copy kernel");
    }
    this.#forced = path;
  }

  /** Destroys the kernel's buffers. Individual copies keep working. */
  [Symbol.dispose](): void {
    this.#state = "closed";
    this.#due.clear();
    this.#kernel?.[Symbol.dispose]();
    this.#kernel = null;
    this.#trial?.[Symbol.dispose]();
  }

  // A getter, because control flow analysis ignores changes of the state during an await.
  get #isClosed(): boolean {
    return this.#state === "closed";
  }

  #pathOf(operations: readonly CopyOperation[]): CopyPath {
    if (this.#forced !== undefined) return this.#forced;
    if (operations.length < MIN_OPERATIONS) return "copies";
    const bytes = operations.reduce((sum, { byteLength }) => sum + byteLength, 0);
    const bytesPerCopy = sizeClassOf(bytes / operations.length);
    if (bytesPerCopy > MAX_BYTES_PER_COPY) return "copies";
    const measured = this.#measured.get(bytesPerCopy);
    if (measured !== undefined) return measured.path;
    const { source, destination } = operations[0] as CopyOperation;
    const isReason = bytes >= MIN_BYTES_TO_MEASURE && isBindable(source) &&
      isBindable(destination);
    if (isReason && !this.#isClosed) this.#due.add(bytesPerCopy);
    return "copies";
  }

  #recordBy(
    path: CopyPath,
    encoder: GPUCommandEncoder,
    operations: readonly CopyOperation[],
  ): void {
    let copies = operations;
    if (path === "kernel" && this.#kernel) {
      const plan = planCopies(operations, this.#limits, isBindable);
      this.#kernel.record(encoder, plan);
      copies = plan.copies;
    }
    for (const { source, sourceOffset, destination, destinationOffset, byteLength } of copies) {
      encoder.copyBufferToBuffer(
        source as GPUBuffer,
        sourceOffset,
        destination as GPUBuffer,
        destinationOffset,
        byteLength,
      );
    }
  }

  async #kernelOfDevice(): Promise<CopyKernel | null> {
    if (this.#kernel !== undefined) return this.#kernel;
    const kernel = await CopyKernel.create(this.#gpuDevice);
    // Another call may have been faster.
    return this.#kernel ??= this.#isClosed ? null : kernel;
  }

  async #measure(bytesPerCopy: number): Promise<CopySpeeds> {
    const copies: CopySpeeds = { path: "copies" };
    if (await this.#kernelOfDevice() === null) return copies;
    const { result: trial } = catchGpuErrors(
      this.#gpuDevice,
      () => new TrialBuffers(this.#gpuDevice, bytesPerCopy),
    );
    this.#trial = trial;
    try {
      // Warms up, because drivers compile at the first use, and detects missing memory for the
      // trial.
      if (!await this.#repeat("kernel", 1)) return copies;
      const speeds = await compareCopyPaths(async (path, repeats) => {
        const start = this.#now();
        return await this.#repeat(path, repeats) ? this.#now() - start : null;
      });
      return speeds ?? copies;
    } catch {
      // The device was lost, or cannot report completion.
      return copies;
    } finally {
      trial[Symbol.dispose]();
      this.#trial = undefined;
    }
  }

  /** Runs the trial's copies and waits for their completion; returns `false` if they fail. */
  async #repeat(path: CopyPath, repeats: number): Promise<boolean> {
    if (this.#trial === undefined || this.#isClosed) return false;
    const { operations } = this.#trial;
    const { error } = catchGpuErrors(this.#gpuDevice, () => {
      for (let i = 0; i < repeats; i++) {
        const encoder = this.#gpuDevice.createCommandEncoder({ label: "kvtier copy trial" });
        this.#recordBy(path, encoder, operations);
        this.#gpuDevice.queue.submit([encoder.finish()]);
      }
    });
    await this.#gpuDevice.queue.onSubmittedWorkDone();
    return await error === null && !this.#isClosed;
  }
}

/** Rounds up to a power of 4 of at least 1 KiB. */
function sizeClassOf(bytes: number): number {
  return 4 ** Math.ceil(Math.log2(Math.max(MIN_BYTES_PER_COPY, bytes)) / 2);
}

/** Whether shaders can access a buffer. */
function isBindable(buffer: DeviceBuffer): boolean {
  return !(buffer instanceof Uint8Array) && (buffer.usage & GPUBufferUsage.STORAGE) !== 0;
}
