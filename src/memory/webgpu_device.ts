import { getLogger } from "@logtape/logtape";
import { MIB } from "../base/units.ts";
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
  type Upload,
} from "./memory_device.ts";
import { CopyPaths } from "./copy_paths.ts";
import { createGpuBuffer } from "./gpu_buffer.ts";
import { catchGpuErrors } from "./gpu_errors.ts";
import { lendBlocks } from "./lent_blocks.ts";
import { countThatFit, packObjects, STAGING_BLOCK_BYTES, StagingPool } from "./staging_pool.ts";

const logger = getLogger(["kvtier", "memory"]);
/**
 * Maximum size of a `writeBuffer` call, and of the writes between two submits: written data occupies
 * host memory until it is submitted.
 */
const UPLOAD_PART_BYTES = 16 * MIB;
/** Read-backs of this size and above take long enough to hide a measurement before them. */
const LONG_READ_BACK_BYTES = MIB;

/** Options of a {@linkcode WebGpuDevice}. */
export interface WebGpuDeviceOptions {
  /** Maximum total size of read-back buffers, in bytes. @default {128 MiB} */
  readonly stagingBytes?: number;
}

/** Features that engines use if the WebGPU adapter has them. */
const WANTED_FEATURES: readonly GPUFeatureName[] = ["shader-f16", "subgroups"];

/**
 * Forces a device to copy by one path, regardless of measurements; `undefined` restores the choice
 * by measurement. For tests and benchmarks.
 *
 * @throws {Error} If the device rejects the kernel.
 */
export let forceCopyPath: (device: WebGpuDevice, path: CopyPath | undefined) => Promise<void>;

/** Device memory in WebGPU buffers, on the caller's device or an own one. */
export class WebGpuDevice implements MemoryDevice {
  /** Kind of memory. */
  readonly type = "webgpu";
  /** The WebGPU device. */
  readonly gpuDevice: GPUDevice;
  /** Description of the WebGPU adapter. */
  readonly description: string;
  /** Whether the WebGPU adapter is a software implementation. */
  readonly isFallback: boolean;
  /** Maximum buffer size of the device in bytes, rounded down to the alignment of ranges. */
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
    const { maxBufferSize } = gpuDevice.limits;
    this.maxSlabBytes = maxBufferSize - maxBufferSize % RANGE_ALIGNMENT;
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
      // Borrowers may never return their read-back buffers.
      this.#staging.close(lostError());
      return { message: message || reason };
    });
  }

  /** Uses the caller's device and does not destroy it on disposal. */
  static adopt(gpuDevice: GPUDevice, options: WebGpuDeviceOptions = {}): WebGpuDevice {
    return new WebGpuDevice(gpuDevice, false, options);
  }

  /**
   * Requests a device with the limits of the WebGPU adapter and, if available, the features
   * `shader-f16` and `subgroups`, which engines need.
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

  /** The faster way to copy on this device, for each measured size of copies. */
  get copyPaths(): readonly MeasuredCopyPath[] {
    return this.#copyPaths.measured;
  }

  /** Creates a buffer with the usages `STORAGE`, `COPY_SRC` and `COPY_DST`. */
  createSlab(byteLength: number): Slab {
    checkSlab(byteLength, this.maxSlabBytes);
    const create = (): GPUBuffer => createGpuBuffer(this.gpuDevice, "kvtier slab", byteLength);
    const { result: buffer, error } = catchGpuErrors(this.gpuDevice, create);
    const slab = { buffer, byteLength, valid: error.then((found) => found === null) };
    this.#slabs.add(slab);
    return slab;
  }

  /** Destroys a slab's buffer. */
  destroySlab(slab: Slab): void {
    if (this.#slabs.delete(slab)) gpuBuffer(slab.buffer).destroy();
  }

  /** Writes through the queue, in limited steps to save host memory. */
  upload(range: MemoryRange, parts: readonly Uint8Array[]): void {
    checkUpload(range, parts);
    const buffer = gpuBuffer(range.buffer);
    const { queue } = this.gpuDevice;
    let offset = range.byteOffset;
    for (const part of parts) {
      for (let start = 0; start < part.byteLength; start += UPLOAD_PART_BYTES) {
        const length = Math.min(UPLOAD_PART_BYTES, part.byteLength - start);
        // WebGPU also takes memory that threads share, which Deno's types do not say.
        const source = part as Uint8Array<ArrayBuffer>;
        queue.writeBuffer(buffer, offset, source, start, length);
        offset += length;
        this.#unsubmittedBytes += length;
        if (this.#unsubmittedBytes >= UPLOAD_PART_BYTES) this.#submit([]);
      }
    }
  }

  /** Writes through the queue. */
  uploadAll(uploads: readonly Upload[]): void {
    for (const { range, parts } of uploads) this.upload(range, parts);
  }

  /** Records all copies in one command encoder and submits them. */
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
        "The device rejected copies: {message}. The engine's buffers must be created by the " +
          "device of the cache and must not have been destroyed",
        { message: found.message },
      );
      return false;
    });
  }

  /** Number of leading objects that fit into the staging buffers. */
  countReadable(sizes: readonly number[]): number {
    return countThatFit(sizes, STAGING_BLOCK_BYTES, this.#staging.capacityBytes);
  }

  /** Copies into pooled staging buffers, maps them with a single wait, and returns views of them. */
  async readBack(requests: readonly ReadBackRequest[]): Promise<ReadBack> {
    for (const { range } of requests) checkRange("Read-back range", range);
    const sizes = requests.map(({ range, tailBytes }) => range.byteLength + tailBytes);
    const packing = packObjects(sizes, STAGING_BLOCK_BYTES);
    // An engine may be waiting for a short read-back; long ones come from the store.
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
      // Some implementations report success for a mapping on a device lost in the meantime.
      this.#throwIfLost();
      const views = blocks.map((block, i) =>
        new Uint8Array(block.getMappedRange(0, mapBytes(packing.usedBytes[i])))
      );
      const objects = packing.objects.map((parts) =>
        parts.map(({ block, byteOffset, byteLength }) =>
          (views[block] as Uint8Array<ArrayBuffer>).subarray(byteOffset, byteOffset + byteLength)
        )
      );
      return lendBlocks(this.#staging, blocks, objects, () => unmapAll(blocks));
    } catch (cause) {
      this.#staging.discard(blocks);
      // Some implementations fail a mapping before they report that the device is lost.
      await this.gpuDevice.queue.onSubmittedWorkDone().catch(() => {});
      this.#throwIfLost();
      throw cause;
    }
  }

  /** Destroys all slabs and staging buffers, and the device unless it belongs to the caller. */
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
        // Only the object's own bytes are copied; the caller writes the tail.
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
    throw new TypeError(`Copy ${what} must be a buffer with GPUBufferUsage.${name}`);
  }
  if (mapState !== "unmapped") {
    throw new TypeError(`Copy ${what} must be an unmapped buffer: received a ${mapState} one`);
  }
}

/** Returns whether the buffers can be reused: some implementations cannot unmap on a lost device. */
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
    `WebGPU memory requires GPUBuffers: received a Uint8Array of ${bufferBytes(buffer)} bytes`,
  );
}
