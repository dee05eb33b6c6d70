import { getLogger } from "@logtape/logtape";
import {
  bufferBytes,
  checkCopy,
  checkRange,
  checkSlab,
  checkUpload,
  type CopyOperation,
  type CopyPath,
  type DeviceAnswer,
  type DeviceBuffer,
  type DeviceLoss,
  DeviceLostError,
  type MeasuredCopyPath,
  type MemoryDevice,
  type MemoryRange,
  RANGE_ALIGNMENT,
  type ReadBack,
  type ReadBackRequest,
  type Slab,
} from "./memory_device.ts";
import { CopyPaths } from "./copy_paths.ts";
import { catchGpuErrors } from "./gpu_errors.ts";
import { countThatFit, packObjects, STAGING_BLOCK_BYTES, StagingPool } from "./staging_pool.ts";

const logger = getLogger(["kvtier", "memory"]);
const MIB = 2 ** 20;
/**
 * Bytes of one `writeBuffer` call, and between two submits: what is written waits in host memory.
 */
const UPLOAD_PART_BYTES = 16 * MIB;
/** A read-back of so many bytes takes so long that a measurement before it matters little. */
const LONG_READ_BACK_BYTES = MIB;

/** Bounds of a {@linkcode WebGpuDevice}. */
export interface WebGpuDeviceOptions {
  /** Most bytes in read-back buffers. @default {128 MiB} */
  readonly stagingBytes?: number;
}

/** Features that engines use where an adapter has them. */
const WANTED_FEATURES: readonly GPUFeatureName[] = ["shader-f16", "subgroups"];

/**
 * Makes a device copy by one path, measured or not; `undefined` goes back to what was measured. For
 * tests and benchmarks.
 *
 * @throws {Error} If the device does not take the kernel.
 */
export let forceCopyPath: (device: WebGpuDevice, path: CopyPath | undefined) => Promise<void>;

/** Device memory in WebGPU buffers, on a caller's device or on one of its own. */
export class WebGpuDevice implements MemoryDevice {
  /** The kind of memory. */
  readonly type = "webgpu";
  /** The WebGPU device. */
  readonly gpuDevice: GPUDevice;
  /** The adapter in words. */
  readonly description: string;
  /** Whether the adapter is a software implementation. */
  readonly isFallback: boolean;
  /** Largest buffer of the device, rounded down to the alignment of ranges. */
  readonly maxSlabBytes: number;
  /** Resolves when the device is lost. */
  readonly lost: Promise<DeviceLoss>;
  readonly #owned: boolean;
  readonly #staging: StagingPool<GPUBuffer>;
  readonly #slabs = new Set<Slab>();
  readonly #copyPaths: CopyPaths;
  #unsubmittedBytes = 0;
  #isLost = false;

  private constructor(gpuDevice: GPUDevice, owned: boolean, options: WebGpuDeviceOptions) {
    const { stagingBytes = 128 * MIB } = options;
    const info = gpuDevice.adapterInfo;
    this.gpuDevice = gpuDevice;
    this.description = info.description || info.device || info.vendor || "WebGPU device";
    this.isFallback = info.isFallbackAdapter;
    this.maxSlabBytes = gpuDevice.limits.maxBufferSize -
      gpuDevice.limits.maxBufferSize % RANGE_ALIGNMENT;
    this.#owned = owned;
    this.#copyPaths = new CopyPaths(gpuDevice);
    this.#staging = new StagingPool({
      blockBytes: STAGING_BLOCK_BYTES,
      capacityBytes: stagingBytes,
      create: () =>
        gpuDevice.createBuffer({
          label: "kvtier staging",
          size: STAGING_BLOCK_BYTES,
          usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST,
        }),
      destroy: (buffer) => buffer.destroy(),
    });
    this.lost = gpuDevice.lost.then(({ message, reason }) => {
      this.#isLost = true;
      this.#copyPaths[Symbol.dispose]();
      // Who has read-back buffers may never give them back.
      this.#staging.close(lostError());
      return { message: message || reason };
    });
  }

  /** Uses a caller's device, and leaves it alive when disposed. */
  static adopt(gpuDevice: GPUDevice, options: WebGpuDeviceOptions = {}): WebGpuDevice {
    return new WebGpuDevice(gpuDevice, false, options);
  }

  /**
   * Requests a device of its own, with all that the adapter offers and engines need: its limits,
   * and the features `shader-f16` and `subgroups`.
   *
   * @returns `null` if the host has no WebGPU adapter.
   */
  static async request(options: WebGpuDeviceOptions = {}): Promise<WebGpuDevice | null> {
    const adapter = await globalThis.navigator?.gpu?.requestAdapter();
    if (!adapter) return null;
    const gpuDevice = await adapter.requestDevice({
      label: "kvtier",
      requiredFeatures: WANTED_FEATURES.filter((feature) => adapter.features.has(feature)),
      requiredLimits: limitsOf(adapter),
    });
    return new WebGpuDevice(gpuDevice, true, options);
  }

  /** Whether the device is lost. */
  get isLost(): boolean {
    return this.#isLost;
  }

  /** Which way of copying was faster on the device, for each size of copies that was measured. */
  get copyPaths(): readonly MeasuredCopyPath[] {
    return this.#copyPaths.measured;
  }

  /** Creates a buffer that can be copied from and to, and bound as storage. */
  createSlab(byteLength: number): Slab {
    checkSlab(byteLength, this.maxSlabBytes);
    const { result: buffer, error } = catchGpuErrors(
      this.gpuDevice,
      () =>
        this.gpuDevice.createBuffer({
          label: "kvtier slab",
          size: byteLength,
          usage: GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST,
        }),
    );
    const valid = error.then((found) => found === null);
    const slab = { buffer, byteLength, valid };
    this.#slabs.add(slab);
    return slab;
  }

  /** Destroys a slab's buffer. */
  destroySlab(slab: Slab): void {
    if (this.#slabs.delete(slab)) gpuBuffer(slab.buffer).destroy();
  }

  /** Writes through the queue, in parts that keep little in host memory. */
  upload(range: MemoryRange, parts: readonly Uint8Array<ArrayBuffer>[]): void {
    checkUpload(range, parts);
    const buffer = gpuBuffer(range.buffer);
    const { queue } = this.gpuDevice;
    let offset = range.byteOffset;
    for (const part of parts) {
      for (let start = 0; start < part.byteLength; start += UPLOAD_PART_BYTES) {
        const length = Math.min(UPLOAD_PART_BYTES, part.byteLength - start);
        queue.writeBuffer(buffer, offset, part, start, length);
        offset += length;
        this.#unsubmittedBytes += length;
        if (this.#unsubmittedBytes >= UPLOAD_PART_BYTES) this.#submit([]);
      }
    }
  }

  /** Records all copies in one encoder and submits it. */
  copy(operations: readonly CopyOperation[]): DeviceAnswer {
    for (const operation of operations) {
      checkCopy(operation);
      checkCopyable(operation.source, "source", GPUBufferUsage.COPY_SRC);
      checkCopyable(operation.destination, "destination", GPUBufferUsage.COPY_DST);
    }
    if (operations.length === 0) return true;
    const { error } = catchGpuErrors(this.gpuDevice, () => {
      const encoder = this.gpuDevice.createCommandEncoder({ label: "kvtier copy" });
      this.#copyPaths.record(encoder, operations);
      this.#submit([encoder.finish()]);
    });
    return error.then((found) => {
      if (found === null) return true;
      logger.error(
        "The device refused to copy: {message}. The buffers of an engine must be made by the " +
          "device of the cache, and not be destroyed",
        { message: found.message },
      );
      return false;
    });
  }

  /** As many as the staging buffers hold together. */
  countReadable(sizes: readonly number[]): number {
    return countThatFit(sizes, STAGING_BLOCK_BYTES, this.#staging.capacityBytes);
  }

  /** Copies into pooled staging buffers, maps them all with one wait, and hands out views. */
  async readBack(requests: readonly ReadBackRequest[]): Promise<ReadBack> {
    for (const { range } of requests) checkRange("Read-back range", range);
    const sizes = requests.map(({ range, tailBytes }) => range.byteLength + tailBytes);
    const packing = packObjects(sizes, STAGING_BLOCK_BYTES);
    // A short one may be what an engine waits for; a long one is the store's.
    if (sizes.reduce((sum, size) => sum + size, 0) >= LONG_READ_BACK_BYTES) {
      await this.#copyPaths.measureDue();
    }
    const blocks = await this.#staging.acquire(packing.usedBytes.length);
    try {
      this.#throwIfLost();
      this.#recordReadBack(requests, packing.objects, blocks);
      await Promise.all(
        blocks.map((block, i) =>
          block.mapAsync(GPUMapMode.READ, 0, mapBytes(packing.usedBytes[i]))
        ),
      );
      // Some implementations let a map succeed on a device that was lost meanwhile.
      this.#throwIfLost();
      const views = blocks.map((block, i) =>
        new Uint8Array(block.getMappedRange(0, mapBytes(packing.usedBytes[i])))
      );
      const objects = packing.objects.map((parts) =>
        parts.map(({ block, byteOffset, byteLength }) =>
          (views[block] as Uint8Array<ArrayBuffer>).subarray(byteOffset, byteOffset + byteLength)
        )
      );
      let state: "lent" | "abandoned" | "disposed" = "lent";
      return {
        objects,
        abandon: () => {
          if (state !== "lent") return;
          state = "abandoned";
          this.#staging.abandon(blocks);
        },
        [Symbol.dispose]: () => {
          const before = state;
          state = "disposed";
          if (before === "abandoned") { for (const block of blocks) block.destroy(); }
          if (before !== "lent") return;
          if (unmapAll(blocks)) this.#staging.release(blocks);
          else this.#staging.discard(blocks);
        },
      };
    } catch (cause) {
      this.#staging.discard(blocks);
      // Some implementations fail the map of a lost device before they tell that it is lost.
      await this.gpuDevice.queue.onSubmittedWorkDone().catch(() => {});
      this.#throwIfLost();
      throw cause;
    }
  }

  /** Destroys all slabs and staging buffers, and the device if it is not a caller's. */
  [Symbol.dispose](): void {
    for (const slab of this.#slabs) gpuBuffer(slab.buffer).destroy();
    this.#slabs.clear();
    this.#copyPaths[Symbol.dispose]();
    this.#staging[Symbol.dispose]();
    if (this.#owned) this.gpuDevice.destroy();
  }

  static {
    forceCopyPath = (device, path) => device.#copyPaths.force(path);
  }

  #recordReadBack(
    requests: readonly ReadBackRequest[],
    objects: ReturnType<typeof packObjects>["objects"],
    blocks: readonly GPUBuffer[],
  ): void {
    const encoder = this.gpuDevice.createCommandEncoder({ label: "kvtier read-back" });
    for (const [i, { range }] of requests.entries()) {
      const source = gpuBuffer(range.buffer);
      let done = 0;
      for (const { block, byteOffset, byteLength } of objects[i] ?? []) {
        // The tail is the caller's: only the object's own bytes are copied.
        const length = Math.min(byteLength, range.byteLength - done);
        if (length <= 0) break;
        const staging = blocks[block] as GPUBuffer;
        encoder.copyBufferToBuffer(source, range.byteOffset + done, staging, byteOffset, length);
        done += length;
      }
    }
    this.#submit([encoder.finish()]);
  }

  #submit(commands: GPUCommandBuffer[]): void {
    this.gpuDevice.queue.submit(commands);
    this.#unsubmittedBytes = 0;
  }

  #throwIfLost(): void {
    if (this.#isLost) throw lostError();
  }
}

function limitsOf({ limits }: GPUAdapter): Record<string, number> {
  const names = Object.getOwnPropertyNames(Object.getPrototypeOf(limits));
  const values = names.map((name) => [name, limits[name as keyof GPUSupportedLimits]] as const);
  return Object.fromEntries(values.filter(([, value]) => typeof value === "number"));
}

function lostError(): DeviceLostError {
  return new DeviceLostError("GPU device is lost: call attachDevice() with a new one");
}

function checkCopyable(buffer: DeviceBuffer, what: "source" | "destination", usage: number): void {
  const { usage: usages, mapState } = gpuBuffer(buffer);
  const name = what === "source" ? "COPY_SRC" : "COPY_DST";
  if ((usages & usage) === 0) {
    throw new TypeError(`Copy ${what} must be a buffer made with GPUBufferUsage.${name}`);
  }
  if (mapState !== "unmapped") {
    throw new TypeError(`Copy ${what} must be an unmapped buffer: received a ${mapState} one`);
  }
}

/** Whether the buffers can be used again: some implementations refuse to unmap on a lost device. */
function unmapAll(buffers: readonly GPUBuffer[]): boolean {
  try {
    for (const buffer of buffers) buffer.unmap();
    return true;
  } catch {
    return false;
  }
}

function mapBytes(usedBytes: number | undefined): number {
  return Math.ceil((usedBytes ?? 0) / 8) * 8;
}

function gpuBuffer(buffer: DeviceBuffer): GPUBuffer {
  if (!(buffer instanceof Uint8Array)) return buffer;
  throw new TypeError(
    `WebGPU memory takes GPUBuffers: received a Uint8Array of ${bufferBytes(buffer)} bytes`,
  );
}
